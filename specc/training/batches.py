"""Batches of recorded text.

B  sequences      L  tokens, the longest sequence's      N  L - 1 slots of a head      T  taps      D  hidden size
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from specc.training.shards import Recording

S = TypeVar("S", bound=Sized)
JITTER = 24  # tokens by which the order of lengths is disturbed, so that each epoch has other batches


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences of like length.

    Attributes:
        tokens: [B, L] int64.
        states: [B, L, T * D] bf16: the states after the taps.
        final: [B, L, D] bf16: what the model's last product reads.
        valid: [B, L] bool: false where a sequence is padded.
        part: of the training that is done, from 0 to 1.
    """

    tokens: Tensor
    states: Tensor
    final: Tensor
    valid: Tensor
    part: float = 0.0

    @property
    def slots(self) -> int:
        """The slots of a head that runs beside all tokens but the first, N."""
        return self.tokens.shape[1] - 1

    def rows(self, depth: int) -> Tensor:
        """Return which slots draft at a depth, [B, N] bool: those with so many slots of drafts before them."""
        rows = self.valid[:, 1:].clone()
        rows[:, :depth] = False
        return rows


def collate(recordings: Sequence[Recording]) -> Batch:
    """Put recordings side by side."""
    lengths = torch.tensor([len(recording) for recording in recordings])
    return Batch(
        tokens=pad_sequence([recording.tokens for recording in recordings], batch_first=True),
        states=pad_sequence([recording.states for recording in recordings], batch_first=True),
        final=pad_sequence([recording.final for recording in recordings], batch_first=True),
        valid=torch.arange(int(lengths.max())) < lengths[:, None],
    )


def epoch(recordings: Sequence[S], tokens: int, seed: int) -> list[list[S]]:
    """Group recordings of like length into batches, in random order.

    Args:
        recordings: what to group, whose lengths are tokens.
        tokens: the size of a batch, padding included. A longer sequence is a batch of its own.
        seed: of the order.
    """
    rng = random.Random(seed)
    ordered = sorted(recordings, key=lambda recording: len(recording) + rng.random() * JITTER)
    groups = list(_groups(ordered, tokens))
    rng.shuffle(groups)
    return groups


def _groups(ordered: Sequence[S], tokens: int) -> Iterator[list[S]]:
    group: list[S] = []
    longest = 0
    for recording in ordered:
        longest = max(longest, len(recording))
        if group and (len(group) + 1) * longest > tokens:
            yield group
            group, longest = [], len(recording)
        group.append(recording)
    if group:
        yield group
