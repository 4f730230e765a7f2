"""Train a trigram encoder and a layer of full context (Chimera, Zeng et al. 2024, arXiv:2402.15758).

Two things are compared: states, by the mean of their squared distance, and probabilities. The paper's logits loss is
that of one step. Here drafts stand on drafts while they train, as in EAGLE-3's training-time test (Li et al. 2025,
arXiv:2503.01840), and states are divided by the size of the model's, so that the weight of the loss is the same for all
models. The paper's text is ShareGPT, ours the model's own answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads import Head
from specc.heads.chimera import Chimera
from specc.runtime.drafters.chimera import digits_of
from specc.training.batches import Batch
from specc.training.closed_form import start_products, zero_layers
from specc.training.course import Course
from specc.training.eagle3 import RATES, layer_settings
from specc.training.sequential import STEPS, last_layer
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import DraftAttention, later, layer_logits


def _settings(config: Any) -> dict[str, float]:
    """Return the settings of a layer with as many heads for states as the model has, and as many for trigrams."""
    settings = layer_settings(config)
    return {**settings, "heads": 2 * settings["heads"], "key_heads": 2 * settings["key_heads"]}


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start the input products from a closed form, the last one from the model's, and encoder and layer at zero."""
    assert isinstance(head, Chimera) and head.own is not None and head.head is not None and head.norm is not None
    start_products(head, teacher, recordings)
    if head.has_trigrams:
        nn.init.zeros_(head.down.weight)
    zero_layers(head)


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layer on the model's states, then on the head's own, one slot later each time."""
    assert isinstance(head, Chimera)
    tokens, positions = batch.tokens[:, 1:], torch.arange(batch.slots)[None]
    attention: list[Any] = [DraftAttention()]
    before, state, streams = tokens_before(batch), head.fuse(batch.states[:, :-1].float()), []
    for _ in range(steps):
        state = torch.cat([state[..., : head.size], before], -1)
        streams.append(head.run_layers(tokens, positions, state, attention))
        state = later(head.next_state(streams[-1]), 1)
    return streams


def tokens_before(batch: Batch) -> Tensor:
    """Return what the drafter writes into the states of the slots, [B, N, 6]: the digits of the two tokens before."""
    last = batch.tokens[:, :-1]
    both = torch.stack([last, torch.cat([last[:, :1], last[:, :-1]], 1)], -1)
    return torch.from_numpy(digits_of(both.cpu().numpy())).to(both.device).flatten(-2)


def state_loss(head: Chimera, batch: Batch, streams: list[Tensor]) -> Tensor:
    """Return the mean squared distance of the guessed states from the model's, by the mean square of the model's.

    Args:
        head: the head.
        batch: recorded text.
        streams: what `unroll` returned.
    """
    losses = []
    for depth, x in enumerate(streams):
        rows = batch.rows(depth)
        final = batch.final[:, 1:][rows].float()
        losses.append(functional.mse_loss(head.normed(x[rows]), final) / final.pow(2).mean())
    return torch.stack(losses).mean()


def _besides(head: Head, batch: Batch, streams: list[Tensor]) -> Tensor:
    assert isinstance(head, Chimera)
    return state_loss(head, batch, streams)


COURSE = Course(
    architecture="chimera",
    taps=last_layer,
    settings=_settings,
    start=_start,
    unroll=unroll,
    product=layer_logits,
    steps=STEPS,
    recurrent=True,
    rates=RATES,
    besides=_besides,
)
