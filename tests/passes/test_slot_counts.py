"""The number of slots in shapes: open in a captured graph, and fixed by some passes."""

from __future__ import annotations

import pytest
import torch
from small_graphs import small

from specc.passes.find import aten, calls, placeholder
from specc.passes.slot_counts import fix_slots, fixed_slots, size_at, slot_axis

pytestmark = pytest.mark.torch


def test_an_open_number_of_slots_becomes_the_one_that_is_asked_for() -> None:
    graph = small(lambda x: x.reshape(1, x.shape[1], 2, 4) * 2, slots={"x": 1}, x=torch.ones(1, 5, 8))
    x, (view,) = placeholder(graph, "x"), calls(graph, aten.reshape.default, aten.view.default)
    assert (slot_axis(x), slot_axis(view), fixed_slots(x)) == (1, 1, None)
    assert [size_at(size, 3) for size in view.meta["val"].shape] == [1, 3, 2, 4]
    fix_slots(view, 3)
    assert tuple(view.meta["val"].shape) == (1, 3, 2, 4) and view.args[1] == [1, 3, 2, 4]
    assert (fixed_slots(view), slot_axis(view)) == (3, None)


def test_arguments_can_be_others() -> None:
    graph = small(lambda x, y: x + 1 + 0 * y, slots={"x": 1, "y": 1}, x=torch.ones(1, 5, 8), y=torch.ones(1, 5, 8))
    x, y = placeholder(graph, "x"), placeholder(graph, "y")
    node = next(iter(x.users))
    fix_slots(node, 4, {x: y})
    assert node.args[0] is y and fixed_slots(node) == 4


def test_a_value_without_slots_has_no_axis_of_them() -> None:
    graph = small(lambda x: x * 2, x=torch.ones(3))
    assert slot_axis(placeholder(graph, "x")) is None and fixed_slots(placeholder(graph, "x")) is None
