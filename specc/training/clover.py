"""Train heads that attend to the drafted token (Xiao et al. 2024, Clover, arXiv:2405.00263, and -2, arXiv:2408.00264).

Both learn the model's probabilities. In Clover-2, the guess of each depth also regresses on the model's next state: in
the smooth L1 norm, with ten times the weight of the probabilities. The weight of a depth falls from depth to depth.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from specc.heads import Head
from specc.heads.sequential import Sequential
from specc.training.batches import Batch
from specc.training.course import DEEPER
from specc.training.eagle import feature_loss
from specc.training.eagle3 import layer_settings
from specc.training.sequential import course_of

DEPTHS = 5  # drafted tokens that Clover-2's paper trains


def _settings(config: Any) -> dict[str, float]:
    return {**layer_settings(config), "layers": 1, "parts": config.num_attention_heads}


def _settings_2(config: Any) -> dict[str, float]:
    return {**_settings(config), "layers": 2, "cosine": 1, "hidden": config.hidden_size}


def regression(head: Head, batch: Batch, guesses: list[Tensor]) -> Tensor:
    """Return how far the guesses are from the model's states, summed over the depths by their weights.

    Args:
        head: the head.
        batch: recorded text.
        guesses: what `Sequential.logits` reads at each depth, [B, N, D]. Behind its norm, a guess is compared with the
            state that the model's last product reads.
    """
    assert isinstance(head, Sequential)
    losses = [
        DEEPER**depth * feature_loss(head.normed(guess), batch, depth)
        for depth, guess in enumerate(guesses)
        if batch.rows(depth).any()
    ]
    return torch.stack(losses).sum()


COURSE = course_of("clover", _settings)
CLOVER_2 = replace(course_of("clover_2", _settings_2), steps=DEPTHS, besides=regression)
