"""The decoder layer over states: what a slot sees, and that passes recognise its parts."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, VOCABULARY, head

from specc.passes.find import layers
from specc.passes.fuse_rms_norm import FuseRMSNorm
from specc.passes.fuse_rotary import FuseRotary

pytestmark = pytest.mark.torch
SLOTS = 9


def test_a_slot_sees_the_token_and_the_state_of_itself_and_those_before() -> None:
    module = head("eagle3")
    tokens, positions = torch.arange(SLOTS)[None] % VOCABULARY, torch.arange(SLOTS)[None]
    state = torch.randn(1, SLOTS, SIZE)
    logits = module(tokens, positions, state)["logits"]
    for change in ("token", "state"):
        other_tokens, other_state = tokens.clone(), state.clone()
        if change == "token":
            other_tokens[0, 5] += 1
        else:
            other_state[0, 5] += 1
        moved = (module(other_tokens, positions, other_state)["logits"] - logits).abs().amax(-1)[0] > 1e-5
        assert moved.tolist() == [slot >= 5 for slot in range(SLOTS)], change


def test_positions_count_by_their_differences() -> None:
    module = head("eagle3")
    tokens, positions, state = torch.arange(SLOTS)[None], torch.arange(SLOTS)[None], torch.randn(1, SLOTS, SIZE)
    logits = module(tokens, positions, state)["logits"]
    torch.testing.assert_close(module(tokens, positions + 7, state)["logits"], logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(module(tokens, positions * 2, state)["logits"], logits, atol=1e-2)


def test_passes_find_its_norms_its_rotary_embedding_and_its_layer() -> None:
    module = head("eagle3").requires_grad_(False)
    example = torch.zeros(1, 7, dtype=torch.long), torch.arange(7)[None], torch.randn(1, 7, SIZE)
    slots = {1: torch.export.Dim("slots", min=2, max=1 << 16)}
    graph = torch.export.export(module, example, dynamic_shapes=(slots, slots, slots), strict=False).module()
    assert isinstance(graph, torch.fx.GraphModule)
    assert (FuseRMSNorm()(graph), FuseRotary(32)(graph), layers(graph)) == (6, 2, {0: "layers.0"})
