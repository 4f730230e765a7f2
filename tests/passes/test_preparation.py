"""The passes of the preparation, each alone: what it finds, and that no logit changes."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from families import POSITIONS
from graphs import EIGHT, SLOTS, captured, logits, operators, prepared, tokens, truth
from torch import Tensor, nn

from specc import passes
from specc.passes.bound_positions import BoundPositions
from specc.passes.drop_asserts import DropAsserts
from specc.passes.out_of_place import OutOfPlace
from specc.passes.pad_heads import PadHeads

pytestmark = pytest.mark.torch

ALWAYS = ("DropAsserts", "DropNoops")
PLACES = {  # in three layers
    "OutOfPlace": {"mixtral": 3},  # a router that divides in place would stay alive in a draft without its layer
    "FoldConstants": {"gemma2": 13},  # its norms' weight + 1
    "FuseRMSNorm": {"llama": 7, "qwen3": 13, "gemma2": 13, "mixtral": 7},
    "FuseRotary": {
        "llama": 6,
        "qwen3": 6,
        "gemma2": 6,
        "phi": 6,
        "gpt_neox": 6,
        "cohere2": 4,
        "mixtral": 6,
        "codegen": 6,
    },
    "BoundPositions": {"opt": 1, "gpt2": 1, "codegen": 1},
    "MergeProjections": {"llama": 3, "gemma2": 3, "mixtral": 3, "cohere2": 3},  # elsewhere something stands between
    "PadHeads": dict.fromkeys(EIGHT, 3),
    "CoreAten": {},
}


def test_what_is_left_of_a_llama() -> None:
    found = "\n".join(f"{count:3} {name}" for name, count in operators(prepared("llama")).items())
    assert_expected_inline(
        found,
        """\
  6 aten.add.Tensor
  1 aten.embedding
 16 aten.linear
  3 aten.mul.Tensor
  3 aten.reshape
  3 aten.silu
  9 aten.slice.Tensor
  1 aten.sym_size.int
 12 aten.transpose.int
  9 aten.view
  3 specc.attention
  7 specc.rms_norm
  6 specc.rotary""",
    )


@pytest.mark.parametrize(("family", "short"), [("nemotron", "aten.square"), ("gpt_oss", "aten.to.dtype")])
def test_operators_that_no_backend_knows_are_written_out(family: str, short: str) -> None:
    graph = captured(family)
    *before, last = passes.preparation(POSITIONS)
    passes.run(before, graph)
    found = operators(graph)[short]
    (ran,) = passes.run([last], graph)
    assert ran.name == "CoreAten()" and ran.changed == found and short not in operators(graph)
    torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", EIGHT)
def test_each_pass_finds_its_places_and_changes_no_logit(family: str) -> None:
    """One after another; positions beyond the tables of learned ones, and heads that are no multiple, are to be had."""
    graph = captured(family)
    before = operators(graph)
    for step in [*passes.preparation(POSITIONS + 16), PadHeads(24)]:
        (ran,) = passes.run([step], graph)
        name = type(step).__name__
        if name in ALWAYS:
            assert ran.changed and ran.nodes_after < ran.nodes_before, name
        elif step != PadHeads(8):
            assert ran.changed == PLACES[name].get(family, 0), name
        torch.testing.assert_close(
            logits(graph), truth(family), msg=lambda m, n=name: f"{n}: {m}", atol=1e-4, rtol=1e-4
        )
    found = operators(graph)
    assert not any("assert" in name or "div_" in name for name in found)
    assert found.get("specc.rms_norm", 0) == PLACES["FuseRMSNorm"].get(family, 0)
    assert found.get("specc.rotary", 0) == PLACES["FuseRotary"].get(family, 0)
    assert found.get("aten.linear", 0) == before.get("aten.linear", 0) - 2 * PLACES["MergeProjections"].get(family, 0)


@pytest.mark.parametrize("family", EIGHT)
def test_a_slot_beyond_the_last_position_runs(family: str) -> None:
    """And without the pass it does not, where a table has a row for each position."""
    late = tokens(), POSITIONS + torch.arange(SLOTS)[None]
    graph = captured(family)
    passes.run([DropAsserts()], graph)
    if family in PLACES["BoundPositions"]:
        with pytest.raises(IndexError):
            graph(*late)
    passes.run([BoundPositions(POSITIONS + 16)], graph)
    assert graph(*late)["logits"].isfinite().all()


class Filled(nn.Module):
    """A tensor made of two parts; `early` takes a view of it before it is filled, and returns that."""

    def __init__(self, early: bool) -> None:
        super().__init__()
        self.early = early

    def forward(self, x: Tensor) -> Tensor:
        whole = torch.zeros_like(x)
        view = whole[1:3] if self.early else None
        whole[:2].copy_(x[:2])
        whole[2:].copy_(-x[2:])
        return whole * 2 if view is None else view


@pytest.mark.parametrize(("early", "left"), [(False, 0), (True, 2)])
def test_a_copy_into_a_slice_makes_a_new_value_unless_another_view_would_miss_it(early: bool, left: int) -> None:
    x = torch.arange(4.0) + 1
    graph = torch.export.export(Filled(early), (x,), strict=False).module(check_guards=False)
    passes.run([OutOfPlace()], graph)
    assert operators(graph).get("aten.copy_", 0) == left
    assert torch.equal(graph(x), Filled(early)(x))
