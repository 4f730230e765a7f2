"""Train heads that guess the next state from a product of the token and the last state.

EAGLE (Li et al. 2024, arXiv:2401.15077) compares states, and probabilities with a tenth of that weight. It reads the
model's states with noise, and never its own in training. A module for multi-token prediction (DeepSeek-V3,
arXiv:2412.19437) is compared by probabilities alone, and is run again on its own output for each depth, as in FastMTP
(arXiv:2509.18362).

Both depart from their papers in these points: the product starts from a closed form, the layer starts at zero, and the
text is the model's own answers, whose probabilities are learned in place of the tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from specc.heads import Head
from specc.heads.eagle import Eagle
from specc.heads.head import rms_norm
from specc.training.batches import Batch
from specc.training.closed_form import ROWS, Squares
from specc.training.course import Course
from specc.training.device import generator
from specc.training.eagle3 import layer_settings
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import layer_logits, unroll

FEATURES = 10.0  # the weight of the states' loss, which is ten times that of the probabilities
NOISE = 0.1  # the largest number that is added to one of a state, or taken away


def _settings_of_eagle(config: Any) -> dict[str, float]:
    return layer_settings(config) | {"final_norm": 0}


def _settings_of_mtp(config: Any) -> dict[str, float]:
    return layer_settings(config) | {"token_norm": 1, "state_norm": 1, "input_norm": 1}


@torch.no_grad()
def start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start the product at the best linear guess of the next state, and the layer at zero."""
    assert isinstance(head, Eagle)
    weight, scale = fit(head, teacher, recordings)
    head.fc.weight.copy_(weight)
    for norm in (head.token_norm, head.state_norm):
        if norm is not None:
            norm.fill_(1.0)
    if head.norm is not None:
        head.norm.fill_(scale)
    for layer in head.decoder_layers():
        layer.output.weight.zero_()
        if layer.has_mlp:
            layer.down.weight.zero_()


@torch.no_grad()
def fit(head: Eagle, teacher: Teacher, recordings: Sequence[Recording], ahead: int = 1) -> tuple[Tensor, float]:
    """Fit a linear guess of a later state from a token beside the state before it.

    Args:
        head: the head, which says what is normed.
        teacher: the model's tables.
        recordings: text with states.
        ahead: how many places behind the state that is read the guessed one lies.

    Returns:
        The product [D, 2 D], and the root mean square of what is guessed.
    """
    size = teacher.embedding.shape[1]
    squares, total, rows = Squares(2 * size, size), 0.0, 0
    for recording in recordings:
        if rows > ROWS:
            break
        count, final = len(recording) - ahead, recording.final[ahead:].float()
        if count < 1:
            continue
        token, state = teacher.embedding[recording.tokens[1 : 1 + count]], head.fuse(recording.states[:count].float())
        token = token if head.token_norm is None else rms_norm(token, None, head.eps)
        state = state if head.state_norm is None else rms_norm(state, None, head.eps)
        squares.add(torch.cat([token, state[..., :size]], 1), final)
        total, rows = total + float(final.pow(2).sum()), rows + count
    return squares.solve().T, (total / max(1, rows * size)) ** 0.5


def unroll_with_noise(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layer, in training on states with noise. The noise depends on the batch alone."""
    if head.training:
        random = generator(int(batch.tokens.sum()))
        noise = (2 * torch.rand(batch.states.shape, generator=random) - 1) * NOISE
        batch = replace(batch, states=batch.states.float() + noise)
    return unroll(head, batch, steps)


def feature_loss(states: Tensor, batch: Batch, depth: int = 0) -> Tensor:
    """Return how far states [B, N, D] are from those that the model's last product reads, in the smooth L1 norm."""
    rows = batch.rows(depth)
    return FEATURES * functional.smooth_l1_loss(states[rows], batch.final[:, 1:][rows].float())


EAGLE = Course(
    architecture="eagle",
    taps=lambda layers: (layers,),
    settings=_settings_of_eagle,
    start=start,
    unroll=unroll_with_noise,
    product=layer_logits,
    steps=1,
    recurrent=True,
    rates={"fc": 0.15},
    besides=lambda head, batch, streams: feature_loss(streams[0], batch),
)
MTP = Course(
    architecture="mtp",
    taps=lambda layers: (layers,),
    settings=_settings_of_mtp,
    start=start,
    unroll=unroll,
    product=layer_logits,
    steps=3,
    recurrent=True,
    rates={"fc": 0.15, "norm": 0.1, "token_norm": 0.1, "state_norm": 0.1},
)
