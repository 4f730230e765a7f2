"""Chimera's head: what a trigram reads, what the layer reads, and the loss of states."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_head import SIZE, config, head, recordings, teacher

from specc.heads import build_head
from specc.heads.chimera import Chimera
from specc.runtime.drafters.chimera import with_tokens
from specc.training.batches import collate
from specc.training.chimera import COURSE, state_loss, unroll

pytestmark = pytest.mark.torch
STEPS = 4


def chimera() -> Chimera:
    module = head("chimera")
    assert isinstance(module, Chimera)
    return module


@torch.no_grad()
def test_each_depth_has_the_logits_of_a_draft_whose_states_name_the_tokens_before() -> None:
    """Row i at depth k is slot i of a call whose last k slots stand on the head's own states."""
    module = chimera()
    batch = collate(recordings(2, "chimera", length=9))
    unrolled = [COURSE.product(module, k, rows) for k, rows in enumerate(unroll(module, batch, STEPS))]
    states, text = module.fuse(batch.states[:, :-1].float()), batch.tokens[1].tolist()
    for root in range(batch.slots - STEPS):
        state = states[1:, : root + 1]
        for depth in range(STEPS):
            end = root + depth + 1
            pairs = [(text[slot], text[max(0, slot - 1)]) for slot in range(end)]
            state = torch.from_numpy(with_tokens(state[0].numpy(), pairs))[None]
            result = module(torch.tensor([text[1 : 1 + end]]), torch.arange(end)[None], state)
            truth = result["logits"][0, -1]
            torch.testing.assert_close(unrolled[depth][1, end - 1], truth, atol=1e-4, rtol=1e-4)
            state = torch.cat([state, result["state"][:, -1:]], 1)


@torch.no_grad()
def test_what_the_encoder_makes_depends_on_three_tokens() -> None:
    module = chimera()
    token, before = torch.tensor([[3]]), torch.tensor([[[4, 5]]])
    outputs = [
        module.encode(token, before),
        module.encode(token, before.flip(-1)),
        module.encode(token, torch.tensor([[[4, 6]]])),
        module.encode(torch.tensor([[7]]), before),
    ]
    assert all(not torch.allclose(outputs[0], other, atol=1e-3) for other in outputs[1:])


@torch.no_grad()
def test_half_of_the_heads_look_at_states_and_half_at_trigrams() -> None:
    """If the states of the earlier slots change, only the first half of what attention returns does."""
    module, values = chimera(), []
    (layer,) = module.decoder_layers()

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        values.append(value)
        return torch.zeros_like(query)

    x, positions = torch.randn(1, 5, SIZE), torch.arange(5)[None]
    for seed in (1, 2):
        states = torch.randn(1, 5, SIZE, generator=torch.Generator().manual_seed(seed))
        layer(states, x, positions, attend)
    first, second = values
    half = first.shape[1] // 2
    assert torch.equal(first[:, half:], second[:, half:]) and not torch.allclose(first[:, :half], second[:, :half])


def test_without_trigrams_the_head_has_no_encoder() -> None:
    base = config("chimera")
    without = build_head(replace(base, settings={**base.settings, "trigrams": 0}))
    names = {name for name, _ in chimera().named_parameters()} - {name for name, _ in without.named_parameters()}
    assert names == {"up.weight", "down.weight"}


def test_the_loss_of_states_is_zero_for_the_models_own_and_does_not_depend_on_their_size() -> None:
    module, batch = chimera(), collate(recordings(3, "chimera"))
    module.register_parameter("norm", None)  # So that the last product reads the stream as it is.
    final = batch.final[:, 1:].float()
    assert state_loss(module, batch, [final]) == 0
    far = state_loss(module, batch, [0.5 * final])
    torch.testing.assert_close(far, torch.tensor(0.25))
    larger = replace(batch, final=4 * batch.final)
    torch.testing.assert_close(state_loss(module, larger, [2 * final]), far)


@torch.no_grad()
def test_the_closed_form_already_drafts_well() -> None:
    """The toy's next state is a linear function of the token, so the start alone finds the next token."""
    module = chimera()
    module.attach(teacher().embedding, teacher().product)
    COURSE.start(module, teacher(), recordings(40, "chimera"))
    batch = collate(recordings(4, "chimera", seed=9, length=20))
    assert module.vocabulary is not None
    choices = module.vocabulary[module.logits(unroll(module, batch, 1)[0]).argmax(-1)]
    assert (choices[:, :-1] == batch.tokens[:, 2:])[batch.valid[:, 2:]].float().mean() > 0.9
