"""Refuse numbers that are not finite: a training that meets them has failed, and what it leaves would be of no use."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from specc.runtime.errors import HeadError


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Tell whether no number of tensors is NaN or infinite. Tensors of whole numbers always are finite."""
    results = [torch.isfinite(tensor).all() for tensor in tensors if tensor.is_floating_point()]
    return not results or bool(torch.stack(results).all())


def check_weights(module: nn.Module, name: str, remedy: str) -> None:
    """Refuse a module with weights that are not finite.

    Args:
        module: a head or a model.
        name: what messages call it.
        remedy: what the user can do.

    Raises:
        HeadError: a weight is NaN or infinite.
    """
    if not are_finite(module.state_dict().values()):
        raise HeadError(f"{name} has weights that are not finite numbers; {remedy}")


def check_logits(logits: Tensor) -> None:
    """Refuse logits that are NaN or infinite. Ranks by them would be wrong: every comparison with NaN is false.

    Raises:
        HeadError: a logit is NaN or infinite.
    """
    if not are_finite([logits]):
        raise HeadError(
            "the logits of what is trained are not finite numbers; train again with a lower --learning-rate, and "
            "check the model's weights if that does not help"
        )
