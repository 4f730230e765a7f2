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
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from specc.training.shards import Recording

S = TypeVar("S", bound=Sized)
# On a processor, torch keeps a program, and room for it, for each shape of a product that it meets. So shapes are few:
# of sequences of STEP slots or a multiple, and of ROWS rows or a multiple.
STEP, ROWS = 16, 64
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
        tokens=padded([recording.tokens for recording in recordings]),
        states=padded([recording.states for recording in recordings]),
        final=padded([recording.final for recording in recordings]),
        valid=torch.arange(_in_steps(int(lengths.max()))) < lengths[:, None],
    )


def padded(sequences: Sequence[Tensor]) -> Tensor:
    """Put sequences [N, ...] side by side, with zeros behind: [B, L, ...]. L is one more than a multiple of STEP."""
    rows = pad_sequence(list(sequences), batch_first=True)
    missing = _in_steps(rows.shape[1]) - rows.shape[1]
    return functional.pad(rows, (*(0, 0) * (rows.ndim - 2), 0, missing))


def fill_up(rows: Tensor) -> Tensor:
    """Put rows of zeros behind rows [M, ...], up to a multiple of ROWS."""
    return functional.pad(rows, (*(0, 0) * (rows.ndim - 1), 0, -len(rows) % ROWS))


def _in_steps(length: int) -> int:
    """Return the length of a batch whose longest sequence has so many tokens: whole steps of slots, and one more."""
    return 1 + -(-(length - 1) // STEP) * STEP


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
        longest = max(longest, _in_steps(len(recording)))
        if group and (len(group) + 1) * longest > tokens:
            yield group
            group, longest = [], _in_steps(len(recording))
        group.append(recording)
    if group:
        yield group
