"""Train a layer that also says how many tokens to draft (AdaEAGLE, Zhang et al. 2024, arXiv:2412.18910)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from specc.heads import Head
from specc.heads.adaeagle import AdaEagle
from specc.training.acceptance import CHAIN
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.eagle3 import RATES, layer_settings, start, taps_of
from specc.training.unroll import layer_logits, unroll

SHORT = 1.5  # the weight of a guess that is too small, relative to one that is too large


@torch.no_grad()
def accepted_lengths(head: Head, batch: Batch, streams: Sequence[Tensor]) -> Tensor:
    """Count how many tokens of a draft the text goes on with, for a draft from each slot.

    Args:
        head: the head.
        batch: recorded text.
        streams: what `unroll` returned.

    Returns:
        [B, N - K]: of the slots that have K tokens behind the next one, K being the number of depths.
    """
    assert isinstance(head, AdaEagle)
    roots = batch.slots - len(streams)
    right = torch.ones(len(batch.tokens), roots, dtype=torch.long)
    total = torch.zeros_like(right)
    for depth, stream in enumerate(streams):
        choices = head.logits(stream[:, depth : depth + roots]).argmax(-1)
        choices = choices if head.vocabulary is None else head.vocabulary[choices]
        right = right * (choices == batch.tokens[:, depth + 2 : depth + 2 + roots])
        total += right
    return total


def length_loss(head: Head, batch: Batch, streams: list[Tensor]) -> Tensor:
    """Return the mean distance of the guessed lengths from those that come true. Too small a guess weighs more."""
    assert isinstance(head, AdaEagle)
    truth = accepted_lengths(head, batch, streams)
    roots = truth.shape[1]
    guesses = head.lengths(batch.tokens[:, 1 : 1 + roots], head.fuse(batch.states[:, :roots].float()).detach())
    distances = (guesses[..., 0] - truth)[batch.valid[:, 1 + len(streams) : 1 + len(streams) + roots]]
    return torch.where(distances < 0, -SHORT * distances, distances).mean()


COURSE = Course(
    architecture="adaeagle",
    taps=taps_of,
    settings=layer_settings,
    start=start,
    unroll=unroll,
    product=layer_logits,
    steps=CHAIN,
    recurrent=True,
    rates=RATES,
    besides=length_loss,
)
