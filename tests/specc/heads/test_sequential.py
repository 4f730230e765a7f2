"""What sequential heads have in common: a linear guess, a correction, and layers that drafts do not run."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, VOCABULARY, config, head
from torch import Tensor

from specc.heads import build_head
from specc.heads.head import rms_norm
from specc.heads.sequential import Sequential

pytestmark = pytest.mark.torch
NAMES = ("hydra", "hydra_plus_plus", "recurrent_drafter", "clover", "clover_2")


def sequential(name: str) -> Sequential:
    module = head(name)
    assert isinstance(module, Sequential)
    return module


def taps() -> Tensor:
    return torch.randn(1, 3, SIZE, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", NAMES)
def test_a_state_begins_with_a_product_of_the_taps_and_a_memory_of_zeros(name: str) -> None:
    module = sequential(name)
    state = module.fuse(taps())
    assert state.shape[-1] == module.state_size
    assert torch.equal(state[..., :SIZE], module.fc(rms_norm(taps(), None, module.eps)))
    assert not state[..., SIZE:].any()


@pytest.mark.parametrize("name", NAMES)
def test_a_fresh_head_makes_the_linear_guess(name: str) -> None:
    module = build_head(config(name))
    assert isinstance(module, Sequential)
    module.attach(torch.randn(VOCABULARY, SIZE))
    assert module.embedding is not None
    ids = torch.tensor([[1, 2, 3]])
    state = module.fuse(taps())
    x, after = module.step(ids, state)
    torch.testing.assert_close(x, state[..., :SIZE] + module.token(rms_norm(module.embedding[ids], None, module.eps)))
    torch.testing.assert_close(after[..., :SIZE], module.own(rms_norm(x, None, module.eps)))


@pytest.mark.parametrize("name", NAMES)
def test_a_head_attends_as_far_as_it_has_layers(name: str) -> None:
    module = sequential(name)
    assert module.attends == (module.context_layers > 0) == (len(module.decoder_layers()) > 0)
