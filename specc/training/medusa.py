"""Train heads over the last state, each for another token ahead (Cai et al. 2024, Medusa-1, arXiv:2401.10774).

It departs from the paper in the loss: heads learn the model's probabilities and not the text's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from specc.heads import Head
from specc.heads.head import rms_norm
from specc.heads.medusa import Medusa
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.shards import Recording
from specc.training.teacher import Teacher

HEADS = 4


def _settings(config: Any) -> dict[str, float]:
    return {"heads": HEADS, "eps": float(getattr(config, "rms_norm_eps", 1e-6))}


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start each product as the model's own, and the norm as the model's, which least squares finds."""
    assert isinstance(head, Medusa)
    recording = max(recordings, key=len)
    normed, final = rms_norm(recording.states.float(), None, head.eps), recording.final.float()
    head.norm.copy_((normed * final).sum(0) / normed.pow(2).sum(0).clamp(min=1e-9))
    for last in head.products():
        last.weight.copy_(teacher.product if head.vocabulary is None else teacher.product[head.vocabulary])


def _unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run each block on the state of the token before the draft, so many rows before the row that it foretells."""
    assert isinstance(head, Medusa)
    state = head.fuse(batch.states[:, :-1].float())
    features = [state + functional.silu(block(state)) for block in head.blocks][:steps]
    return [
        functional.pad(rows, (0, 0, depth, 0))[:, : batch.slots] if depth else rows
        for depth, rows in enumerate(features)
    ]


def _product(head: Head, depth: int, rows: Tensor) -> Tensor:
    assert isinstance(head, Medusa)
    logits: Tensor = head.heads[depth](rows)
    return logits


COURSE = Course(
    architecture="medusa",
    taps=lambda layers: (-1,),
    settings=_settings,
    start=_start,
    unroll=_unroll,
    product=_product,
    steps=HEADS,
    recurrent=False,
    rates={"heads": 0.1, "norm": 0.1},
)
