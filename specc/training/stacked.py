"""Train heads that guess several tokens from one state: what all of their courses have in common.

All depart from their papers in the loss: guesses learn the model's probabilities and not the text's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads import Head
from specc.heads.head import LastStateHead, rms_norm
from specc.heads.layer import Attend
from specc.heads.stacked import Stacked
from specc.training.batches import Batch
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import DraftAttention

HEADS = 4


@torch.no_grad()
def start_as_the_model(
    head: LastStateHead, products: Sequence[nn.Linear], teacher: Teacher, recordings: Sequence[Recording]
) -> None:
    """Start the last products as the model's own, and the norm as the model's, which least squares finds.

    Args:
        head: the head.
        products: those of it that make logits.
        teacher: the model.
        recordings: text with states.
    """
    recording = max(recordings, key=len)
    assert head.norm is not None, "a head that is trained has a norm of its own"
    last = recording.states[:, -len(head.norm) :].float()
    normed, final = rms_norm(last, None, head.eps), recording.final.float()
    head.norm.copy_((normed * final).sum(0) / normed.pow(2).sum(0).clamp(min=1e-9))
    for last_product in products:
        last_product.weight.copy_(teacher.product if head.vocabulary is None else teacher.product[head.vocabulary])


@torch.no_grad()
def start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start the norm and the last products as the model's own."""
    assert isinstance(head, Stacked)
    start_as_the_model(head, head.products(), teacher, recordings)


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the guesses on the state of the token before the draft, so many rows before the row that each foretells."""
    assert isinstance(head, Stacked)
    positions = torch.arange(batch.slots)[None]
    state = head.fuse(batch.states[:, :-1].float())
    attention: list[Attend] = [DraftAttention() for _ in head.attention()]
    features = head.features(batch.tokens[:, 1:], positions, state, attention)[:steps]
    return [
        functional.pad(rows, (0, 0, depth, 0))[:, : batch.slots] if depth else rows
        for depth, rows in enumerate(features)
    ]


def product(head: Head, depth: int, rows: Tensor) -> Tensor:
    """Return the logits [M, V'] of a guess from rows [M, d] of what `unroll` returned."""
    assert isinstance(head, Stacked)
    logits: Tensor = head.product_of(depth)(rows)
    return logits
