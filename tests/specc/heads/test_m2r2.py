"""The second stream of M2R2."""

from __future__ import annotations

import pytest
import torch
from small_head import LAYERS, SIZE, head
from torch.nn import functional

from specc.heads.head import rms_norm
from specc.heads.m2r2 import M2R2
from specc.runtime.block import Layers

pytestmark = pytest.mark.torch
STATES = torch.randn(1, 5, 2 * SIZE, generator=torch.Generator().manual_seed(1))


def test_fresh_adapters_leave_the_models_own_stream() -> None:
    module = head("m2r2")
    assert isinstance(module, M2R2)
    module.begin()
    for ours, theirs in zip(module.accelerated(STATES), STATES.chunk(2, -1), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_an_adapter_adds_stays_in_the_stream() -> None:
    """What the second layer adds is added to the faster stream."""
    module = head("m2r2")
    assert isinstance(module, M2R2)
    last = module.up[1]
    assert isinstance(last, torch.nn.Linear)
    torch.nn.init.zeros_(last.weight)
    (first, second), (slow, slower) = module.accelerated(STATES), STATES.chunk(2, -1)
    assert float((first - slow).detach().abs().max()) > 0.1
    torch.testing.assert_close(second, first + slower - slow)
    torch.testing.assert_close(module.bridge(STATES), second)


def test_the_gate_reads_latent_states_of_all_layers_by_attention() -> None:
    """With equal latent states, what is read is twice one of them. A latent of any layer changes the logit."""
    module = head("m2r2")
    assert isinstance(module, M2R2) and module.state_size == 1
    streams = module.accelerated(STATES)
    logit = module.gate(streams)
    torch.testing.assert_close(module.fuse(STATES), logit)
    assert logit.shape == (1, 5, 1)
    for number in range(2):
        changed = [x + (index == number) * torch.randn(SIZE) for index, x in enumerate(streams)]
        assert not torch.allclose(module.gate(changed), logit)
    module.latents[1].load_state_dict(module.latents[0].state_dict())
    latent = module.latents[0](rms_norm(streams[0], None, module.eps))
    torch.testing.assert_close(module.gate([streams[0]] * 2), module.score(functional.silu(2 * latent)))


def test_drafts_run_the_first_layers_and_cost_as_much_for_each_token() -> None:
    module = head("m2r2")
    assert isinstance(module, M2R2) and module.draft_layers == Layers(exit_after=2, bridge="m2r2")
    assert module.draft_cost(4, 10**9) == pytest.approx(4 * 2 / LAYERS, abs=1e-4)
