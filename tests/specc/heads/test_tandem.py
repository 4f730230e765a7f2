"""The small model of a tandem: what it reads of the large one, and of itself."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, VOCABULARY, head
from torch import Tensor

from specc.heads.head import rms_norm
from specc.heads.tandem import Tandem

pytestmark = pytest.mark.torch
TOKENS = torch.arange(6)[None]
POSITIONS = torch.arange(6)[None]
STATES = torch.randn(1, 6, 2 * SIZE, generator=torch.Generator().manual_seed(1))


def run(tokens: Tensor, states: Tensor) -> dict[str, Tensor]:
    module = head("tandem", VOCABULARY)
    with torch.no_grad():
        outputs: dict[str, Tensor] = module(tokens, POSITIONS, states)
    return outputs


def test_it_sees_a_token_before_it_by_its_state_alone() -> None:
    """Keys and values are made from states, so the token in an earlier slot counts for nothing."""
    others = TOKENS.clone()
    others[0, 2] = 30
    ours, theirs = run(TOKENS, STATES)["logits"], run(others, STATES)["logits"]
    assert not torch.allclose(ours[0, 2], theirs[0, 2])
    torch.testing.assert_close(ours[0, 3:], theirs[0, 3:])


def test_each_layer_reads_the_states_of_its_own_tap() -> None:
    changed = STATES.clone()
    changed[0, 2, SIZE:] += 1
    ours, theirs = run(TOKENS, STATES), run(TOKENS, changed)
    assert not torch.allclose(ours["logits"][0, 4], theirs["logits"][0, 4])
    torch.testing.assert_close(ours["state"], theirs["state"])  # No layer stands behind the last.


def test_its_own_state_of_a_token_is_a_product_of_what_enters_each_layer() -> None:
    module, state = head("tandem", VOCABULARY), run(TOKENS, STATES)["state"]
    assert isinstance(module, Tandem) and module.state_size == state.shape[-1] == 2 * SIZE
    assert module.embedding is not None
    stream = module.token(rms_norm(module.embedding[TOKENS], None, module.eps))
    torch.testing.assert_close(state[..., :SIZE], module.own_states[0](rms_norm(stream, None, module.eps)))


def test_states_of_the_model_go_through_a_product_for_each_layer() -> None:
    module = head("tandem")
    assert isinstance(module, Tandem)
    taps = torch.randn(1, 3, 2 * SIZE)
    fused = module.fuse(taps).chunk(2, -1)
    for ours, project, tap in zip(fused, module.projections, taps.chunk(2, -1), strict=True):
        torch.testing.assert_close(ours, project(rms_norm(tap, None, module.eps)))
