"""DropNoops: calls that return their input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from expecttest import assert_expected_inline
from small_graphs import graph_text, rewrite, small
from torch import Tensor

from specc.passes.drop_noops import DropNoops
from specc.passes.find import calls

pytestmark = pytest.mark.torch

aten = torch.ops.aten


def everything(x: Tensor) -> Tensor:
    y = aten.to.dtype(x, torch.float32) * 2
    y = aten.contiguous(aten.dropout(y, 0.5, False))
    y = aten.slice.Tensor(aten.view(aten.clone(y), [4, 2]), 0, 0, 2**63 - 1)
    return aten.to.dtype(y, torch.float64) + 1  # type: ignore[no-any-return]


def test_casts_copies_dropout_and_whole_slices_go_and_a_view_becomes_a_reshape() -> None:
    x = torch.arange(8.0).reshape(2, 4)
    graph = small(everything, x=x)
    assert_expected_inline(
        rewrite(graph, DropNoops()),
        """\
inputs x
to_1 = to(x, float32)
mul_1 = mul(to_1, 2)
dropout_1 = dropout(mul_1, 0.5, False)
contiguous_1 = contiguous(dropout_1)
clone_1 = clone(contiguous_1)
view_1 = view(clone_1, [4, 2])
slice_1 = slice(view_1, 0, 0, 9223372036854775807)
to_2 = to(slice_1, float64)
add_1 = add(to_2, 1)
return {logits: add_1}
--> DropNoops() changed 5
inputs x
mul_1 = mul(x, 2)
reshape_1 = reshape(mul_1, [4, 2])
to_1 = to(reshape_1, float64)
add_1 = add(to_1, 1)
return {logits: add_1}""",
    )
    assert torch.equal(graph(x)["logits"], everything(x))


STAY: dict[str, Callable[[Tensor], Tensor]] = {
    "a cast to another type": lambda x: aten.to.dtype(x, torch.float16),
    "dropout that is on": lambda x: aten.dropout(x, 0.5, True),
    "a slice with a start": lambda x: aten.slice.Tensor(x, 0, 1, 2**63 - 1),
    "a slice with an end": lambda x: aten.slice.Tensor(x, 0, 0, 3),
    "a slice with a step": lambda x: aten.slice.Tensor(x, 0, 0, 2**63 - 1, 2),
    "a sum": lambda x: x + x,
    "a call whose first argument is a list": lambda x: torch.cat([x, x]),
}
GO: dict[str, Callable[[Tensor], Tensor]] = {
    "a slice without numbers": lambda x: aten.slice.Tensor(x, 0),
    "a slice to the largest end": lambda x: aten.slice.Tensor(x, 0, 0, 2**62),
    "a type that another tensor has": lambda x: aten.type_as(x, x),
    "a copy": aten.clone,
    "an alias": aten.alias,
}


@pytest.mark.parametrize("name", STAY)
def test_what_changes_a_value_stays(name: str) -> None:
    graph = small(lambda x: STAY[name](x) * 2, x=torch.arange(8.0))
    before = graph_text(graph)
    assert DropNoops()(graph) == 0 and graph_text(graph) == before


@pytest.mark.parametrize("name", GO)
def test_what_changes_no_value_goes(name: str) -> None:
    graph = small(lambda x: GO[name](x) * 2, x=torch.arange(8.0))
    assert DropNoops()(graph) == 1
    graph.recompile()
    assert graph_text(graph) == "inputs x\nmul_1 = mul(x, 2)\nreturn {logits: mul_1}"


@pytest.mark.parametrize(("step", "changed"), [(1, 1), (2, 0)])
def test_a_step_of_one_may_be_written(step: int, changed: int) -> None:
    """torch.export leaves it out, so it is added here."""
    graph = small(lambda x: aten.slice.Tensor(x, 0, 0, 2**62) * 2, x=torch.arange(8.0))
    (cut,) = calls(graph, aten.slice.Tensor)
    cut.args = (*cut.args, step)
    assert DropNoops()(graph) == changed
