"""How far a draft model's probabilities q are from those of the model, p: the losses of DistillSpec.

Zhou et al. 2023, arXiv:2310.08461. All are means over rows, at temperature 1.

M  rows      V  tokens
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from specc.runtime.errors import HeadError

Divergence = Callable[[Tensor, Tensor], Tensor]
MODEL_SHARE = 0.5  # Jensen and Shannon's divergence compares both with a mixture, of which p has this share.


def forward_kl(logits: Tensor, model_logits: Tensor) -> Tensor:
    """Return KL(p, q), of logits [M, V] and the model's logits [M, V]. It makes q cover all that p has."""
    p, log_p, log_q = model_logits.softmax(-1), model_logits.log_softmax(-1), logits.log_softmax(-1)
    return (p * (log_p - log_q)).sum(-1).mean()


def reverse_kl(logits: Tensor, model_logits: Tensor) -> Tensor:
    """Return KL(q, p). It keeps q away from what p lacks."""
    return forward_kl(model_logits, logits)


def jensen_shannon(logits: Tensor, model_logits: Tensor) -> Tensor:
    """Return the divergence of both from their mixture, MODEL_SHARE * KL(p, m) + (1 - MODEL_SHARE) * KL(q, m)."""
    p, q = model_logits.softmax(-1), logits.softmax(-1)
    log_m = (MODEL_SHARE * p + (1 - MODEL_SHARE) * q).clamp(min=1e-30).log()
    of_p = (p * (model_logits.log_softmax(-1) - log_m)).sum(-1)
    of_q = (q * (logits.log_softmax(-1) - log_m)).sum(-1)
    return (MODEL_SHARE * of_p + (1 - MODEL_SHARE) * of_q).mean()


def total_variation(logits: Tensor, model_logits: Tensor) -> Tensor:
    """Return half the sum of |p - q|: how often speculative sampling rejects a token that is drawn from q."""
    return 0.5 * (model_logits.softmax(-1) - logits.softmax(-1)).abs().sum(-1).mean()


DIVERGENCES: Mapping[str, Divergence] = {
    "forward-kl": forward_kl,
    "reverse-kl": reverse_kl,
    "jensen-shannon": jensen_shannon,
    "total-variation": total_variation,
}


def divergence_of(name: str) -> Divergence:
    """Return a divergence by its name. Raises HeadError if there is none."""
    if name not in DIVERGENCES:
        raise HeadError(f"unknown divergence {name!r}; choose one of {', '.join(DIVERGENCES)}")
    return DIVERGENCES[name]


@torch.no_grad()
def acceptance_rates(logits: Tensor, model_logits: Tensor) -> Tensor:
    """Return how often speculative sampling accepts a token that is drawn from q, [M]: the sum of min(p, q)."""
    return torch.minimum(model_logits.float().softmax(-1), logits.float().softmax(-1)).sum(-1)
