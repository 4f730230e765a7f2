"""The loss of a head: cross entropy with the model's own probabilities, over the tokens that the head knows.

M  rows      V'  tokens that the head knows      D  hidden size
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from specc.training.teacher import Teacher

# Rows whose logits are compared at once. On a processor, they stay in its cache.
ROWS, GPU_ROWS = 32, 4096


class Distillation:
    """A loss that compares a head with its model (Hinton et al. 2015, arXiv:1503.02531, at temperature 1).

    Args:
        teacher: the model.
        vocabulary: the tokens that the head knows, [V']; None for all.
    """

    def __init__(self, teacher: Teacher, vocabulary: Tensor | None) -> None:
        product, bias = teacher.product, teacher.bias
        self.product = product if vocabulary is None else product[vocabulary]
        self.bias = bias if vocabulary is None or bias is None else bias[vocabulary]
        self._rounded: dict[torch.dtype, Tensor] = {}

    @torch.no_grad()
    def logits(self, final: Tensor) -> Tensor:
        """Return the model's logits [M, V'] from what its last product reads, [M, D]."""
        product = self._product(final.dtype)
        return functional.linear(final, product, self.bias)

    def _product(self, kind: torch.dtype) -> Tensor:
        """Return the product in a type of numbers. It is rounded once."""
        if kind not in self._rounded:
            self._rounded[kind] = self.product.to(kind)
        return self._rounded[kind]

    @staticmethod
    def loss(logits: Tensor, model_logits: Tensor) -> Tensor:
        """Return the mean cross entropy of a head's logits [M, V'] with the model's."""
        value: Tensor = _CrossEntropy.apply(logits, model_logits)  # type: ignore[no-untyped-call]  # torch has no types
        return value


class _CrossEntropy(torch.autograd.Function):
    """The mean cross entropy, and its slopes in closed form: the head's probabilities less the model's.

    A part of the rows at a time goes through all steps.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, model_logits: Tensor) -> Tensor:
        slopes, total = torch.empty_like(logits), torch.zeros(())
        at_once = ROWS if logits.device.type == "cpu" else GPU_ROWS
        parts = (torch.split(rows, at_once) for rows in (logits, model_logits, slopes))
        for part, model_part, slope in zip(*parts, strict=True):
            log_probs, model_probs = part.float().log_softmax(-1), model_part.float().softmax(-1)
            total -= torch.dot(model_probs.flatten(), log_probs.flatten())
            slope.copy_(log_probs.exp_().sub_(model_probs))
        ctx.save_for_backward(slopes)
        return total / len(logits)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * (slope / len(slopes)), None
