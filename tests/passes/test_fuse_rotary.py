"""FuseRotary: the rotary embedding however a model writes it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from expecttest import assert_expected_inline
from graphs import captured
from rotations import (
    SIZE,
    Rotary,
    Rotate,
    by_a_swap_that_names_the_heads,
    by_halves,
    by_neighbours,
    halves,
    in_three_parts,
    overlapping,
    partial,
    stacked,
    turned_around,
    whole_and_more,
)
from small_graphs import graph_text, rewrite, small
from torch import Tensor
from torch.fx import GraphModule

from specc import passes
from specc.passes.find import ROTARY, calls
from specc.passes.fuse_rotary import FuseRotary, PairLayout, both_orders
from specc.runtime.errors import SpeccWarning

pytestmark = pytest.mark.torch

POSITIONS = 9


def heads(size: int = SIZE, slots: int = 4) -> Tensor:
    return torch.randn(1, 2, slots, size, generator=torch.Generator().manual_seed(0))


def graph_of(rotate: Rotate, interleaved: bool = False, size: int = SIZE) -> GraphModule:
    return small(Rotary(rotate, interleaved), x=heads(size), position_ids=torch.arange(4)[None])


def test_the_rotation_becomes_one_node_and_the_angles_tables() -> None:
    graph = graph_of(by_halves)
    assert_expected_inline(
        rewrite(graph, FuseRotary(POSITIONS)),
        """\
inputs x, position_ids
unsqueeze_1 = unsqueeze(position_ids, 1)
unsqueeze_2 = unsqueeze(unsqueeze_1, 3)
mul_1 = mul(unsqueeze_2, self.frequencies)
cat_1 = cat([mul_1, mul_1], -1)
cos_1 = cos(cat_1)
sin_1 = sin(cat_1)
mul_2 = mul(x, cos_1)
slice_1 = slice(x, 3, 0, 3)
slice_2 = slice(x, 3, 3, 9223372036854775807)
neg_1 = neg(slice_2)
cat_2 = cat([neg_1, slice_1], -1)
mul_3 = mul(cat_2, sin_1)
add_1 = add(mul_2, mul_3)
return {logits: add_1}
--> FuseRotary(positions=9) changed 1
inputs x, position_ids
rotary_1 = specc.rotary(x, self.rotary_cos, self.rotary_sin, position_ids, False)
return {logits: rotary_1}""",
    )
    angles = torch.arange(POSITIONS)[:, None] * 0.3 ** torch.arange(SIZE // 2)
    torch.testing.assert_close(graph.get_buffer("rotary_cos"), angles.cos())
    torch.testing.assert_close(graph.get_buffer("rotary_sin"), angles.sin())


def test_sizes_that_do_not_turn_are_taken_in() -> None:
    assert_expected_inline(
        rewrite(graph_of(partial, size=SIZE + 2), FuseRotary(POSITIONS)),
        """\
inputs x, position_ids
unsqueeze_1 = unsqueeze(position_ids, 1)
unsqueeze_2 = unsqueeze(unsqueeze_1, 3)
mul_1 = mul(unsqueeze_2, self.frequencies)
cat_1 = cat([mul_1, mul_1], -1)
cos_1 = cos(cat_1)
sin_1 = sin(cat_1)
slice_1 = slice(x, 3, 0, 6)
mul_2 = mul(slice_1, cos_1)
slice_2 = slice(slice_1, 3, 0, 3)
slice_3 = slice(slice_1, 3, 3, 9223372036854775807)
neg_1 = neg(slice_3)
cat_2 = cat([neg_1, slice_2], -1)
mul_3 = mul(cat_2, sin_1)
add_1 = add(mul_2, mul_3)
slice_4 = slice(x, 3, 6, 9223372036854775807)
cat_3 = cat([add_1, slice_4], -1)
return {logits: cat_3}
--> FuseRotary(positions=9) changed 1
inputs x, position_ids
rotary_1 = specc.rotary(x, self.rotary_cos, self.rotary_sin, position_ids, False)
return {logits: rotary_1}""",
    )


def test_other_sizes_behind_the_rotation_are_not_taken_in() -> None:
    graph = graph_of(overlapping, size=SIZE + 2)
    passes.run([FuseRotary(POSITIONS)], graph)
    assert graph_text(graph).endswith("cat_1 = cat([rotary_1, slice_2], -1)\nreturn {logits: cat_1}")


FORMS = {
    "a whole head, and a slice of it behind it": (whole_and_more, False, SIZE),
    "parts of a head, stacked": (stacked, False, 2 * SIZE),
    "part of a head, and two slices behind it": (in_three_parts, False, SIZE + 2),
    "a swap that names the number of heads": (by_a_swap_that_names_the_heads, False, SIZE),
    "halves": (by_halves, False, SIZE),
    "neighbours": (by_neighbours, True, SIZE),
    "factors and addends turned around": (turned_around, False, SIZE),
    "part of a head": (partial, False, SIZE + 2),
    "part of a head, and other sizes behind it": (overlapping, False, SIZE + 2),
}


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_every_form_keeps_its_value_at_every_position(form: str) -> None:
    rotate, interleaved, size = FORMS[form]
    graph, x = graph_of(rotate, interleaved, size), heads(size)
    (record,) = passes.run([FuseRotary(POSITIONS)], graph)
    (node,) = calls(graph, ROTARY)
    assert record.changed == 1 and record.note == "" and node.args[4] == interleaved
    positions = torch.tensor([[0, 8, 3, 1]])
    expected = Rotary(rotate, interleaved)(x, positions)
    torch.testing.assert_close(graph(x, positions)["logits"], expected)


def slots_first(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As GPT-J turns heads: [1, slots, heads, size]; attention transposes them afterwards."""
    turned = by_halves(x.transpose(1, 2), cos.transpose(1, 2), sin.transpose(1, 2))
    return turned.transpose(1, 2)


def slots_first_and_used_so(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return by_halves(x.transpose(1, 2), cos.transpose(1, 2), sin.transpose(1, 2)) * 2


def open_graph_of(rotate: Rotate) -> GraphModule:
    slots = {"x": 2, "position_ids": 1}
    return small(Rotary(rotate), slots=slots, x=heads(), position_ids=torch.arange(4)[None])


def test_heads_are_put_before_slots_and_the_models_transposition_cancels() -> None:
    text = rewrite(open_graph_of(slots_first), FuseRotary(POSITIONS)).partition("-->")[2]
    assert_expected_inline(
        text,
        """\
 FuseRotary(positions=9) changed 1
inputs x, position_ids
transpose_1 = transpose(x, 1, 2)
transpose_2 = transpose(transpose_1, 1, 2)
rotary_1 = specc.rotary(transpose_2, self.rotary_cos, self.rotary_sin, position_ids, False)
return {logits: rotary_1}""",
    )


def test_slots_are_put_before_heads_again_for_other_users() -> None:
    graph = open_graph_of(slots_first_and_used_so)
    text = rewrite(graph, FuseRotary(POSITIONS)).partition("-->")[2]
    nodes = calls(graph, ROTARY, torch.ops.aten.transpose.int)  # where heads come first, axis 1 has no symbol
    assert [isinstance(node.meta["val"].shape[1], int) for node in nodes] == [False, True, True, False]
    assert_expected_inline(
        text,
        """\
 FuseRotary(positions=9) changed 1
inputs x, position_ids
transpose_1 = transpose(x, 1, 2)
transpose_2 = transpose(transpose_1, 1, 2)
rotary_1 = specc.rotary(transpose_2, self.rotary_cos, self.rotary_sin, position_ids, False)
transpose_3 = transpose(rotary_1, 1, 2)
mul_1 = mul(transpose_3, 2)
return {logits: mul_1}""",
    )


@torch.no_grad()
@pytest.mark.parametrize("rotate", [slots_first, slots_first_and_used_so, by_halves, partial])
def test_heads_and_slots_of_any_order_and_number_keep_their_value(rotate: Rotate) -> None:
    """The probe has five slots; six are run, as many as there are sizes, and two, as many as there are heads."""
    size = SIZE + 2 if rotate is partial else SIZE
    slots = {"x": 2, "position_ids": 1}
    graph = small(Rotary(rotate), slots=slots, x=heads(size), position_ids=torch.arange(4)[None])
    (record,) = passes.run([FuseRotary(POSITIONS)], graph)
    assert record.changed == 1
    for count in (2, 6):
        x, positions = heads(size, count), torch.arange(count)[None].flip(1)
        torch.testing.assert_close(graph(x, positions)["logits"], Rotary(rotate)(x, positions))


def test_layers_share_the_tables() -> None:
    graph = graph_of(lambda x, cos, sin: by_halves(by_halves(x, cos, sin), cos, sin))
    (record,) = passes.run([FuseRotary(POSITIONS)], graph)
    assert record.changed == 2 and sorted(dict(graph.named_buffers(recurse=False))) == ["rotary_cos", "rotary_sin"]


def without_negation(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([b, a], -1) * sin


def in_two_parts(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """As gpt-oss writes it: each half on its own, so no sum holds a whole rotation."""
    (a, b), half = x.chunk(2, -1), SIZE // 2
    return torch.cat([a * cos[..., :half] - b * sin[..., :half], b * cos[..., :half] + a * sin[..., :half]], -1)


def of_two_angles(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return by_neighbours(x, cos, sin)


def of_another_value(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + halves(x + 1) * sin


def subtracted(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos - halves(x) * sin


def with_another_addend(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + x


SWAPS = "and neither swaps the other's halves or neighbours"
MISSES: dict[Rotate, str] = {
    without_negation: f"add in model adds mul_1 and mul_2, {SWAPS}",
    in_two_parts: f"add in model adds mul_3 and mul_4, {SWAPS}",
    of_two_angles: "add in model turns the two sizes of a pair by different angles",
    of_another_value: f"add_1 in model adds mul_1 and mul_2, {SWAPS}",
    subtracted: "mul_1 in model multiplies by angles, but is not a part of x * cos + rotated(x) * sin",
    with_another_addend: "add in model is not a sum of two products",
}


@pytest.mark.parametrize("rotate", MISSES)
def test_a_rotation_in_an_unknown_form_is_named_with_the_reason(rotate: Rotate) -> None:
    graph = graph_of(rotate)
    before = graph_text(graph)
    with pytest.warns(SpeccWarning) as warned:
        (record,) = passes.run([FuseRotary(POSITIONS)], graph)
    assert record.changed == 0 and graph_text(graph) == before
    assert [str(w.message) for w in warned] == [record.note]
    miss = record.note.removeprefix("FuseRotary changed nothing; nearest: ")
    assert miss == f"{MISSES[rotate]}; the model compiles, but runs slower"


def scaled_by_x(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return by_halves(x, cos * x.mean(), sin)


BY_FIT: dict[Rotate, str] = {  # form -> a part of the reason, the form that fits least first
    subtracted: "is not a part of",
    with_another_addend: "is not a sum of two products",
    without_negation: SWAPS,
    scaled_by_x: "not one row of angles for each position",
    of_two_angles: "by different angles",
}


@pytest.mark.parametrize(("worse", "better"), pairwise(BY_FIT), ids=lambda rotate: rotate.__name__)
def test_the_nearest_of_two_misses_is_the_one_that_fits_further(worse: Rotate, better: Rotate) -> None:
    """Whichever comes first in the graph."""
    for rotate in (
        lambda x, cos, sin: better(x, cos, sin) - worse(x, cos, sin),
        lambda x, cos, sin: -worse(x, cos, sin) - better(x, cos, sin),
    ):
        miss = FuseRotary(POSITIONS).nearest_miss(graph_of(rotate))
        assert miss is not None and BY_FIT[better] in miss.reason


def test_angles_that_more_than_positions_decide_are_named() -> None:
    miss = FuseRotary(POSITIONS).nearest_miss(graph_of(scaled_by_x))
    assert miss is not None and miss.reason == "turns by mul_1, which is not one row of angles for each position"


@pytest.mark.parametrize("scaled", [0, 1])
def test_both_tables_need_one_angle_for_the_two_sizes_of_a_pair(scaled: int) -> None:
    factors = [torch.arange(SIZE) if i == scaled else torch.ones(SIZE) for i in (0, 1)]
    graph = graph_of(lambda x, cos, sin: by_halves(x, cos * factors[0], sin * factors[1]))
    miss = FuseRotary(POSITIONS).nearest_miss(graph)
    assert FuseRotary(POSITIONS)(graph) == 0 and miss is not None and "by different angles" in miss.reason


def test_angles_that_differ_between_heads_are_named() -> None:
    graph = graph_of(lambda x, cos, sin: by_halves(x, cos * torch.ones(1, 2, 1, 1), sin))
    miss = FuseRotary(POSITIONS).nearest_miss(graph)
    assert miss is not None and miss.reason == "turns by mul_1, which is not one row of angles for each position"


def test_an_axis_of_open_length_does_not_turn() -> None:
    """Such as that of attention's scores."""

    class Scores(Rotary):
        def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
            angles = position_ids[:, None, :, None] * 0.3
            return x * angles.cos() + (-x).view(x.shape) * angles.sin()

    graph = small(Scores(by_halves), slots={"x": 3}, x=heads(), position_ids=torch.arange(4)[None])
    assert FuseRotary(POSITIONS)(graph) == 0


NO_ROTATION: dict[str, Rotate] = {
    "constant angles": lambda x, cos, sin: x * 0.5 + halves(x) * 0.5,
    "learned positions": lambda x, cos, sin: x + cos * 0.1,
}


@pytest.mark.parametrize("rotate", NO_ROTATION.values(), ids=NO_ROTATION)
@pytest.mark.filterwarnings("error")
def test_a_graph_without_a_rotation_gives_no_warning(rotate: Rotate) -> None:
    (record,) = passes.run([FuseRotary(POSITIONS)], graph_of(rotate))
    assert (record.changed, record.note) == (0, "")


def test_a_swap_that_refuses_the_probe_is_no_rotation() -> None:
    """It reshapes to the sizes of the example, which the probe does not have."""

    def of_fixed_slots(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return x * cos + halves(x).reshape(1, 2, 4, SIZE) * sin

    assert FuseRotary(POSITIONS)(graph_of(of_fixed_slots)) == 0


def test_heads_of_three_axes_stay() -> None:
    """The operator takes four, [1, heads, slots, size]."""

    class Flat(Rotary):
        def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
            angles = position_ids[:, :, None] * self.frequencies
            (a, b), angles = x.chunk(2, -1), torch.cat([angles, angles], -1)
            return x * angles.cos() + torch.cat([-b, a], -1) * angles.sin()

    graph = small(Flat(by_halves), x=heads()[0], position_ids=torch.arange(4)[None].expand(2, 4))
    assert FuseRotary(POSITIONS)(graph) == 0


def test_both_orders_of_a_product_of_two_values() -> None:
    graph = small(lambda x, y: x * y * 2, x=torch.ones(1), y=torch.ones(1))
    of_two, by_number = calls(graph, torch.ops.aten.mul.Tensor)
    (x, y), *others = both_orders(of_two)
    assert (x.name, y.name, others) == ("x", "y", [(y, x)]) and both_orders(by_number) == []


def test_a_layout_says_which_sizes_turn_together() -> None:
    assert [layout.name for layout in PairLayout] == ["HALVES", "NEIGHBOURS"]


@pytest.mark.parametrize("family", ["gpt_oss", "deepseek_v3"])
def test_families_whose_rotation_stays_say_so(family: str) -> None:
    graph = captured(family)
    with pytest.warns(SpeccWarning, match=r"FuseRotary changed nothing; nearest: add_\d+ in model\.model\.layers\.0"):
        passes.run(passes.preparation(64), graph)
