"""The second stream of M2R2, and its gate."""

from __future__ import annotations

import pytest
import torch
from small_head import LAYERS, SIZE, head
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import rms_norm
from specc.heads.m2r2 import M2R2
from specc.runtime.block import Layers

pytestmark = pytest.mark.torch
STATES = list(torch.randn(3, 1, 5, SIZE, generator=torch.Generator().manual_seed(1)))


def m2r2() -> M2R2:
    module = head("m2r2")
    assert isinstance(module, M2R2)
    return module


def itself(number: int, query: Tensor) -> Tensor:
    """Attend to what was queries, in the place of a layer's rows."""
    return (1.0 + number) * query


def zero(product: nn.Module) -> None:
    assert isinstance(product, nn.Linear)
    nn.init.zeros_(product.weight)


def test_fresh_adapters_leave_the_models_own_stream() -> None:
    module = m2r2()
    module.begin()
    for ours, theirs in zip(module.accelerated(STATES, itself), STATES[1:], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_an_adapter_adds_stays_in_the_stream() -> None:
    """What the second layer adds is added to the faster stream."""
    module = m2r2()
    for products in (module.up, module.attended_up):
        zero(products[1])
    first, second = module.accelerated(STATES, itself)
    assert float((first - STATES[1]).detach().abs().max()) > 0.1
    torch.testing.assert_close(second, first + STATES[2] - STATES[1])


def test_the_second_stream_asks_by_its_own_state_and_takes_in_what_it_attends_to() -> None:
    """The first layer is queries by what enters both streams, and the second one by the faster stream."""
    module = m2r2()
    for up in module.up:
        zero(up)
    queries: list[Tensor] = []

    def attend(number: int, query: Tensor) -> Tensor:
        queries.append(query)
        return itself(number, query)

    first, second = module.accelerated(STATES, attend)
    for number, (fast, query) in enumerate(zip((STATES[0], first), queries, strict=True)):
        expected = module.query_up[number](module.query_down[number](rms_norm(fast, None, module.eps)))
        torch.testing.assert_close(query, expected)
    read = module.attended_up[1](module.attended_down[1](2.0 * queries[1]))
    torch.testing.assert_close(second, first + STATES[2] - STATES[1] + read)


def test_the_gate_reads_latent_states_of_all_layers_by_attention() -> None:
    """With equal latent states, what is read is twice one of them. A latent of any layer changes the logit."""
    module = m2r2()
    streams = module.accelerated(STATES, itself)
    logit = module.gate(torch.cat(streams, -1))
    assert logit.shape == (1, 5, 1) and module.state_size == 1
    for number in range(2):
        changed = [x + (index == number) * torch.randn(SIZE) for index, x in enumerate(streams)]
        assert not torch.allclose(module.gate(torch.cat(changed, -1)), logit)
    module.latents[1].load_state_dict(module.latents[0].state_dict())
    latent = module.latents[0](rms_norm(streams[0], None, module.eps))
    equal = torch.cat([streams[0]] * 2, -1)
    torch.testing.assert_close(module.gate(equal), module.score(functional.silu(2 * latent)))


def test_drafts_run_the_first_layers_and_cost_as_much_for_each_token() -> None:
    module = m2r2()
    assert module.draft_layers == Layers(exit_after=2, bridge="m2r2")
    assert module.draft_cost(4, 10**9) == pytest.approx(4 * 2 / LAYERS, abs=1e-4)
