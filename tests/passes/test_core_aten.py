"""CoreAten: operators that backends do not know, written out."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from families import POSITIONS
from graphs import captured, logits, operators, truth
from small_graphs import rewrite, small
from torch import Tensor

from specc import passes
from specc.passes.core_aten import CoreAten

pytestmark = pytest.mark.torch


def squares(x: Tensor) -> Tensor:
    return torch.square(x).to(torch.float64) + 1


def test_a_square_and_a_cast_are_written_out() -> None:
    x = torch.tensor([1.0, -3.0])
    graph = small(squares, x=x)
    assert_expected_inline(
        rewrite(graph, CoreAten()),
        """\
inputs x
square_1 = square(x)
to_1 = to(square_1, float64)
add_1 = add(to_1, 1)
return {logits: add_1}
--> CoreAten() changed 2
inputs x
mul_1 = mul(x, x)
to_copy_1 = _to_copy(mul_1, dtype=float64)
add_1 = add(to_copy_1, 1)
return {logits: add_1}""",
    )
    assert torch.equal(graph(x)["logits"], squares(x)) and graph(x)["logits"].dtype == torch.float64


def test_a_graph_without_them_stays() -> None:
    assert CoreAten()(small(lambda x: x * x, x=torch.ones(2))) == 0


@pytest.mark.parametrize(("family", "short"), [("nemotron", "aten.square"), ("gpt_oss", "aten.to.dtype")])
@pytest.mark.filterwarnings("ignore::specc.runtime.errors.SpeccWarning")
def test_no_such_operator_is_left_in_a_model(family: str, short: str) -> None:
    graph = captured(family)
    *before, last = passes.preparation(POSITIONS)
    passes.run(before, graph)
    count = operators(graph)[short]
    (record,) = passes.run([last], graph)
    assert record.name == "CoreAten()" and record.changed == count and short not in operators(graph)
    torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)
