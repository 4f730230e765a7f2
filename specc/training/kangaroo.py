"""Train the adapter behind an early exit (Kangaroo, Liu et al. 2024, arXiv:2404.18911).

As in the paper, the loss is the cross-entropy with the model's own probabilities, and the first layers stay as they
are. It departs from the paper in two points: the text is the model's own answers, and the adapter's attention starts at
zero, so that it begins as the exit itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from specc.heads import Head
from specc.heads.kangaroo import Kangaroo
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.eagle3 import layer_settings
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import DraftAttention, layer_logits

EXIT = 2  # layers before the adapter, as in the paper for models of 7B


def _taps(layers: int) -> tuple[int, ...]:
    """Return the last layer before the exit, which leaves one layer behind it at least."""
    return (max(1, min(EXIT, layers - 1)) - 1,)


def _settings(config: Any) -> dict[str, float]:
    return layer_settings(config) | {"mlp_size": 0}


@torch.no_grad()
def start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start the attention at zero, and the last norm at the size of what the model's last product reads."""
    assert isinstance(head, Kangaroo) and head.norm is not None
    final = recordings[0].final.float()
    head.norm.fill_(float(final.pow(2).mean().sqrt()))
    for layer in head.decoder_layers():
        layer.output.weight.zero_()


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the adapter beside the text. Each depth is the first one, since drafts stand on states of the model.

    Slot i has token i + 1 of the text, whose own state it reads.
    """
    assert isinstance(head, Kangaroo)
    tokens, positions = batch.tokens[:, 1:], torch.arange(1, batch.slots + 1)[None]
    attention: list[Any] = [DraftAttention() for _ in head.layers]
    stream = head.run_layers(tokens, positions, head.fuse(batch.states[:, 1:].float()), attention)
    return [stream] * steps


COURSE = Course(
    architecture="kangaroo",
    taps=_taps,
    settings=_settings,
    start=start,
    unroll=unroll,
    product=layer_logits,
    steps=1,
    recurrent=True,
)
