"""The best linear guess of the model's next state from what a head sees, in closed form (ridge regression)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from specc.heads.head import rms_norm
from specc.heads.layer_head import LayerHead
from specc.training.shards import Recording
from specc.training.teacher import Teacher

RIDGE = 1e-3  # relative to the mean of the diagonal
ROWS = 60_000  # tokens of text that are enough


@dataclass(frozen=True, kw_only=True)
class ClosedForm:
    """Products whose sum guesses what the model's last product will read next.

    Attributes:
        taps: [D, T * D]: of the states after the taps.
        token: [D, D]: of the next token's embedding.
        own: [D, D]: of the last guess, in place of `taps`.
        scale: the root mean square of what is guessed.
    """

    taps: Tensor
    token: Tensor
    own: Tensor
    scale: float


def start_products(head: Any, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Set the products of a head: those of its input from a closed form, the last one and its norm from the model's.

    Args:
        head: with the products `fc` and `token`, `head` and `norm`. It may have `own`, for a state of its own.
        teacher: the model's tables.
        recordings: text with states.
    """
    fit = solve(recordings, teacher.embedding, len(head.taps), head.eps)
    head.fc.weight.copy_(fit.taps)
    head.token.weight.copy_(fit.token)
    if getattr(head, "own", None) is not None:
        head.own.weight.copy_(fit.own)
    head.head.weight.copy_(teacher.product if head.vocabulary is None else teacher.product[head.vocabulary])
    head.norm.fill_(fit.scale)


def zero_layers(head: LayerHead) -> None:
    """Let the layers of a head add nothing as yet."""
    for layer in head.decoder_layers():
        layer.output.weight.zero_()
        layer.down.weight.zero_()


def solve(recordings: Sequence[Recording], embedding: Tensor, taps: int, eps: float) -> ClosedForm:
    """Fit the products by least squares. All inputs are divided by their root mean square.

    Args:
        recordings: text with states.
        embedding: [V, D].
        taps: the number of taps.
        eps: of the norm.
    """
    size = embedding.shape[1]
    wide, narrow = Squares((taps + 1) * size, size), Squares(2 * size, size)
    total, rows = 0.0, 0
    for recording in recordings:
        if rows > ROWS:
            break
        final = recording.final.float()
        tokens = rms_norm(embedding[recording.tokens[1:]], None, eps)
        states = rms_norm(torch.unflatten(recording.states[:-1].float(), -1, (taps, size)), None, eps).flatten(1)
        wide.add(torch.cat([states, tokens], 1), final[1:])
        narrow.add(torch.cat([rms_norm(final[:-1], None, eps), tokens], 1), final[1:])
        total += float(final[1:].pow(2).sum())
        rows += len(final) - 1
    both = wide.solve()
    token = both[taps * size :]
    # The token's product is shared, so the own state's is fitted to what the token leaves.
    rest = narrow.right[:size] - narrow.left[:size, size:] @ token
    return ClosedForm(
        taps=both[: taps * size].T.contiguous(),
        token=token.T.contiguous(),
        own=_ridge(narrow.left[:size, :size], rest).T.contiguous(),
        scale=(total / max(1, rows * size)) ** 0.5,
    )


class Squares:
    """Sums of products of inputs with inputs, and with outputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        self.left, self.right = torch.zeros(inputs, inputs), torch.zeros(inputs, outputs)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows x [n, inputs] and y [n, outputs]."""
        self.left += x.T @ x
        self.right += x.T @ y

    def solve(self) -> Tensor:
        """Return the matrix [inputs, outputs] of the least squares."""
        return _ridge(self.left, self.right)


def _ridge(left: Tensor, right: Tensor) -> Tensor:
    penalty = RIDGE * float(left.diagonal().mean()) + 1e-9
    solution: Tensor = torch.linalg.solve(left + penalty * torch.eye(len(left)), right)
    return solution
