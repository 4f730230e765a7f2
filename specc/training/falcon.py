"""Train a layer that makes two tokens in one call (Falcon, Gao et al. 2024, arXiv:2412.12639).

States and probabilities are compared, as in EAGLE's training (specc/training/eagle.py), for both tokens of a call.
Drafts stand on drafts, as in EAGLE-3's; the paper's glancing puts the truth in the place of some drafts instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from specc.heads import Head
from specc.heads.falcon import Falcon
from specc.training import eagle
from specc.training.acceptance import CHAIN
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import DraftAttention, later, layer_logits


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start as EAGLE's layer does, with a second state that is the first."""
    assert isinstance(head, Falcon)
    eagle.start(head, teacher, recordings)
    nn.init.zeros_(head.down.weight)


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layer on the model's states, then two slots a call on the head's own."""
    assert isinstance(head, Falcon)
    tokens, positions = batch.tokens[:, 1:], torch.arange(batch.slots)[None]
    attention: list[Any] = [DraftAttention() for _ in head.layers]
    x = head.run_layers(tokens, positions, head.fuse(batch.states[:, :-1].float()), attention)
    features: list[Tensor] = []
    while True:
        second = head.second(x)
        features += [x, later(second, 1)]
        if len(features) >= steps:
            return features[:steps]
        head.run_layers(tokens, positions, later(head.next_state(x), 1), attention)
        x = head.run_layers(tokens, positions, later(head.next_state(second), 2), attention)


def _feature_loss(head: Head, batch: Batch, features: list[Tensor]) -> Tensor:
    losses = [eagle.feature_loss(states, batch, depth) for depth, states in enumerate(features[:2])]
    return torch.stack(losses).mean()


COURSE = Course(
    architecture="falcon",
    taps=eagle.EAGLE.taps,
    settings=eagle.EAGLE.settings,
    start=_start,
    unroll=unroll,
    product=layer_logits,
    steps=CHAIN,
    recurrent=True,
    rates={"fc": 0.15},
    besides=_feature_loss,
)
