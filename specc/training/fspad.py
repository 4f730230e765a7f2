"""Train EAGLE's layer with partial alignment (FSPAD, Gui et al. 2024, arXiv:2408.15562).

The loss of states is that of what the next slot reads. It does not reach what makes the logits directly, so the two
aims are in less conflict than in EAGLE. Else the training is EAGLE's, with its departures (specc/training/eagle.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from specc.heads import Head
from specc.heads.fspad import Fspad
from specc.training import eagle
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import layer_logits


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start as EAGLE's layer does: the sample is nothing, and the next state is what makes the logits."""
    assert isinstance(head, Fspad) and head.own is not None
    eagle.start(head, teacher, recordings)
    nn.init.zeros_(head.down.weight)
    scale = max(recordings, key=len).final.float().pow(2).mean().sqrt()
    head.own.weight.copy_(scale * torch.eye(len(head.own.weight)))


def _alignment(head: Head, batch: Batch, streams: list[Tensor]) -> Tensor:
    assert isinstance(head, Fspad)
    return eagle.feature_loss(head.next_state(streams[0]), batch)


COURSE = Course(
    architecture="fspad",
    taps=eagle.EAGLE.taps,
    settings=eagle.EAGLE.settings,
    start=_start,
    unroll=eagle.unroll_with_noise,
    product=layer_logits,
    steps=1,
    recurrent=True,
    rates={"fc": 0.15, "own": 0.15},
    besides=_alignment,
)
