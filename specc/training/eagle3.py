"""Train heads of one decoder layer, with training-time test (Li et al. 2025, EAGLE-3, arXiv:2503.01840)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from specc.heads import Head
from specc.heads.eagle3 import Eagle3
from specc.training.closed_form import start_products, zero_layers
from specc.training.course import Course
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import layer_logits, unroll

ROPE_THETA = 10000.0
RATES = {"fc": 0.15, "token": 0.15, "own": 0.15, "norm": 0.1, "head": 0.1}


def taps_of(layers: int) -> tuple[int, ...]:
    """Return an early layer, a middle one and the last. A small model has fewer."""
    return (*sorted({min(2, layers - 2), max(0, layers // 2 - 1)}), -1) if layers > 1 else (-1,)


def layer_settings(config: Any) -> dict[str, float]:
    """Return the settings of a layer that is shaped as the model's own."""
    heads = config.num_attention_heads
    rope = getattr(config, "rope_parameters", None) or {}
    return {
        "heads": heads,
        "key_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_size": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "mlp_size": getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        "rope_theta": float(rope.get("rope_theta", ROPE_THETA)),
        "eps": float(getattr(config, "rms_norm_eps", 1e-6)),
    }


@torch.no_grad()
def start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start the input products from a closed form, the last product from the model's, and the layer at zero."""
    assert isinstance(head, Eagle3) and head.token is not None and head.head is not None and head.norm is not None
    start_products(head, teacher, recordings)
    zero_layers(head)


COURSE = Course(
    architecture="eagle3",
    taps=taps_of,
    settings=layer_settings,
    start=start,
    unroll=unroll,
    product=layer_logits,
    steps=3,
    recurrent=True,
    rates=RATES,
)
