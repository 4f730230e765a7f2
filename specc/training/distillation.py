"""The loss of a head: cross entropy with the model's own probabilities, over the tokens that the head knows.

M  rows      V'  tokens that the head knows      D  hidden size
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from specc.training.teacher import Teacher


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

    @torch.no_grad()
    def logits(self, final: Tensor) -> Tensor:
        """Return the model's logits [M, V'] from what its last product reads, [M, D]."""
        return functional.linear(final, self.product.to(final.dtype), self.bias)

    @staticmethod
    def loss(logits: Tensor, model_logits: Tensor) -> Tensor:
        """Return the mean cross entropy of a head's logits [M, V'] with the model's."""
        probs = model_logits.float().softmax(-1)
        logits = logits.float()
        return (logits.logsumexp(-1) - (probs * logits).sum(-1)).mean()
