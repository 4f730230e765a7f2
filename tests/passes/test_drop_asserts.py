"""DropAsserts: a captured graph without its assertions."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from small_graphs import Function, rewrite
from torch import Tensor
from torch.fx.graph import CodeGen

from specc import passes
from specc.passes.drop_asserts import DropAsserts

pytestmark = pytest.mark.torch


def checked(x: Tensor) -> Tensor:
    """Cast a value that must be positive. torch.export writes an assertion of its own for the cast."""
    torch.ops.aten._assert_async.msg((x > 0).all(), "not positive")
    return x.to(torch.float64) * 2


def test_assertions_go_with_what_only_they_need() -> None:
    x = torch.arange(3.0) + 1
    program = torch.export.export(Function(checked), (x,), strict=False)
    graph = passes.fork(program.module(check_guards=False))
    graph.graph.set_codegen(CodeGen())
    assert_expected_inline(
        rewrite(graph, DropAsserts()),
        """\
inputs inputs_0
gt_1 = gt(inputs_0, 0)
all_1 = all(gt_1)
assert_async_1 = _assert_async(all_1, not positive)
assert_tensor_metadata_1 = _assert_tensor_metadata(inputs_0, dtype=float32, device=cpu,
    layout=strided)
to_1 = to(inputs_0, float64)
mul_1 = mul(to_1, 2)
return [mul_1]
--> DropAsserts() changed 2
inputs inputs_0
to_1 = to(inputs_0, float64)
mul_1 = mul(to_1, 2)
return [mul_1]""",
    )
    (y,) = graph(-x)
    assert torch.equal(y, -x.to(torch.float64) * 2)
    assert DropAsserts()(graph) == 0
