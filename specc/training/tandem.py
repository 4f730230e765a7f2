"""Train a small model that attends to the states of the large one (see `specc.heads.tandem`).

The head runs on recorded states, then on its own of the tokens of a draft, as in EAGLE-3's training-time test (Li et
al. 2025, arXiv:2503.01840). That is the paper's block: within it the head sees no states of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from specc.heads import Head
from specc.heads.tandem import Tandem
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.eagle3 import layer_settings
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import DraftAttention, later, layer_logits

STEPS = 3


def taps_of(layers: int) -> tuple[int, ...]:
    """Return a layer in the middle, and the last. A model of one layer has the last alone."""
    return (layers // 2 - 1, -1) if layers > 1 else (-1,)


@torch.no_grad()
def start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start the last product from the model's, and the products between the two models as they hand states on."""
    assert isinstance(head, Tandem) and head.head is not None and head.norm is not None
    head.head.weight.copy_(teacher.product if head.vocabulary is None else teacher.product[head.vocabulary])
    final = max(recordings, key=len).final.float()
    head.norm.fill_(float(final.pow(2).mean().sqrt()))
    for project in head.projections:
        torch.nn.init.eye_(project.weight)  # type: ignore[arg-type]


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layers on the model's states, then on the head's own, one slot later each time."""
    assert isinstance(head, Tandem)
    tokens, positions = batch.tokens[:, 1:], torch.arange(batch.slots)[None]
    attention: list[Any] = [DraftAttention() for _ in head.layers]
    state, streams = head.fuse(batch.states[:, :-1].float()), []
    for _ in range(steps):
        x, own = head.run_tandem(tokens, positions, state, attention)
        streams.append(x)
        state = later(own, 1)
    return streams


COURSE = Course(
    architecture="tandem",
    taps=taps_of,
    settings=layer_settings,
    start=start,
    unroll=unroll,
    product=layer_logits,
    steps=STEPS,
    recurrent=True,
    rates={"norm": 0.1, "head": 0.1},
)
