"""OutOfPlace: no operator writes into its input."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from graphs import operators
from small_graphs import graph_text, rewrite, small
from torch import Tensor

from specc import passes
from specc.passes.out_of_place import OutOfPlace

pytestmark = pytest.mark.torch

aten = torch.ops.aten


def divided(x: Tensor) -> Tensor:
    y = x * 2
    before = y + 1
    aten.div_.Tensor(y, before)
    return y - before


def test_a_write_becomes_a_value_for_the_users_behind_it() -> None:
    x = torch.arange(4.0)
    graph = small(divided, x=x)
    assert_expected_inline(
        rewrite(graph, OutOfPlace()),
        """\
inputs x
mul_1 = mul(x, 2)
add_1 = add(mul_1, 1)
div_1 = div_(mul_1, add_1)
sub_1 = sub(div_1, add_1)
return {logits: sub_1}
--> OutOfPlace() changed 1
inputs x
mul_1 = mul(x, 2)
add_1 = add(mul_1, 1)
div_1 = div(mul_1, add_1)
sub_1 = sub(div_1, add_1)
return {logits: sub_1}""",
    )
    assert torch.equal(graph(x)["logits"], divided(x))


def filled(x: Tensor) -> Tensor:
    """A tensor that is made of two parts."""
    whole = torch.zeros_like(x)
    whole[:2].copy_(x[:2])
    whole[2:].copy_(-x[2:])
    return whole * 2


def test_a_copy_into_a_slice_becomes_a_slice_scatter() -> None:
    x = torch.arange(4.0) + 1
    graph = small(filled, x=x)
    assert_expected_inline(
        rewrite(graph, OutOfPlace()),
        """\
inputs x
zeros_like_1 = zeros_like(x, pin_memory=False)
slice_1 = slice(zeros_like_1, 0, 0, 2)
slice_2 = slice(x, 0, 0, 2)
copy_1 = copy_(slice_1, slice_2)
slice_3 = slice(zeros_like_1, 0, 2, 9223372036854775807)
slice_4 = slice(x, 0, 2, 9223372036854775807)
neg_1 = neg(slice_4)
copy_2 = copy_(slice_3, neg_1)
mul_1 = mul(zeros_like_1, 2)
return {logits: mul_1}
--> OutOfPlace() changed 2
inputs x
zeros_like_1 = zeros_like(x, pin_memory=False)
slice_1 = slice(x, 0, 0, 2)
slice_scatter_1 = slice_scatter(zeros_like_1, slice_1, 0, 0, 2)
slice_2 = slice(x, 0, 2, 9223372036854775807)
neg_1 = neg(slice_2)
slice_scatter_2 = slice_scatter(slice_scatter_1, neg_1, 0, 2, 9223372036854775807)
mul_1 = mul(slice_scatter_2, 2)
return {logits: mul_1}""",
    )
    assert torch.equal(graph(x)["logits"], filled(x))


def test_calls_that_are_not_operators_of_torch_stay() -> None:
    """Such as Python's getitem, which takes one of several results."""
    graph = small(lambda x: aten.split.Tensor(x, 2)[0] * 2, x=torch.arange(4.0))
    before = graph_text(graph)
    assert "[0]" in before and OutOfPlace()(graph) == 0 and graph_text(graph) == before


def keyword(x: Tensor) -> Tensor:
    y = x * 2
    aten.add_.Tensor(y, x, alpha=3)
    return y


def test_keywords_are_kept() -> None:
    x = torch.arange(4.0)
    graph = small(keyword, x=x)
    (record,) = passes.run([OutOfPlace()], graph)
    assert record.changed == 1 and torch.equal(graph(x)["logits"], 5 * x)
    assert graph_text(graph).splitlines()[2:] == ["add_1 = add(mul_1, x, alpha=3)", "return {logits: add_1}"]


def view_read_before_the_write(x: Tensor) -> Tensor:
    y = x * 2
    total = y[1:].sum()
    aten.div_.Tensor(y, total)
    return y


def test_a_view_that_is_read_before_the_write_does_not_matter() -> None:
    x = torch.arange(4.0) + 1
    graph = small(view_read_before_the_write, x=x)
    (record,) = passes.run([OutOfPlace()], graph)
    assert record.changed == 1 and torch.equal(graph(x)["logits"], view_read_before_the_write(x))


def viewed_before(x: Tensor) -> Tensor:
    """Another view is taken before the tensor is filled; it must see what is written."""
    whole = torch.zeros_like(x)
    view = whole[1:3]
    whole[:2].copy_(x[:2])
    whole[2:].copy_(-x[2:])
    return view


def into_a_view(x: Tensor) -> Tensor:
    y = x * 2
    aten.div_.Tensor(y.view(2, 2), 2)
    return y


def slice_of_a_view(x: Tensor) -> Tensor:
    y = x * 2
    y.view(2, 2)[:1].copy_(torch.ones(1, 2))
    return y


def slice_used_twice(x: Tensor) -> Tensor:
    whole = torch.zeros_like(x)
    part = whole[:2]
    part.copy_(x[:2])
    return whole.sum() + part


def view_read_behind_the_write(x: Tensor) -> Tensor:
    y = x * 2
    view = y[1:].view(3, 1)
    aten.div_.Tensor(y, 2)
    return view + 1


def view_of_the_slice(x: Tensor) -> Tensor:
    """A view of the slice is taken before the slice is filled; it must see what is written."""
    whole = torch.zeros_like(x)
    part = whole[:2]
    view = part.view(2, 1)
    part.copy_(x[:2])
    return view + 1


def broadcast(x: Tensor) -> Tensor:
    whole = torch.zeros_like(x)
    whole[:2].copy_(x[3])
    return whole * 2


def of_another_type(x: Tensor) -> Tensor:
    whole = torch.zeros_like(x)
    whole[:2].copy_(x[:2].double())
    return whole * 2


@pytest.mark.parametrize(
    ("function", "left"),
    [
        (viewed_before, {"aten.copy_": 2}),
        (into_a_view, {"aten.div_.Tensor": 1}),
        (slice_of_a_view, {"aten.copy_": 1}),
        (slice_used_twice, {"aten.copy_": 1}),
        (view_of_the_slice, {"aten.copy_": 1}),
        (view_read_behind_the_write, {"aten.div_.Tensor": 1}),
        (broadcast, {"aten.copy_": 1}),
        (of_another_type, {"aten.copy_": 1}),
    ],
)
def test_a_write_that_others_see_or_that_changes_its_values_stays(function, left: dict[str, int]) -> None:  # type: ignore[no-untyped-def]
    x = torch.arange(4.0) + 1
    graph = small(function, x=x)
    passes.run([OutOfPlace()], graph)
    counts = operators(graph)
    assert {name: counts.get(name, 0) for name in left} == left
    assert torch.equal(graph(x)["logits"], function(x))
