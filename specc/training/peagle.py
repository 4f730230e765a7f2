"""Train layers that draft several tokens in one call (P-EAGLE, Hui et al. 2026, arXiv:2602.01469).

Each depth is trained on all rows; the paper draws some, which saves memory for long text.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specc.heads import Head
from specc.training.acceptance import CHAIN
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.eagle3 import RATES, layer_settings, start, taps_of
from specc.training.unroll import layer_logits, unroll_from


def _unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layers on the model's states, then on no states, which stand for the learned one."""
    return unroll_from(head, batch, steps, lambda layers, x: torch.zeros_like(x))


COURSE = Course(
    architecture="peagle",
    taps=taps_of,
    settings=layer_settings,
    start=start,
    unroll=_unroll,
    product=layer_logits,
    steps=CHAIN,
    recurrent=False,
    rates=RATES,
)
