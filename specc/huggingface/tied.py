"""Tensors that have several names, such as a table that is the last product, too."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def first_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return for each name the first name of the same tensor: one of the same memory, shape and type."""
    first: dict[tuple[int, torch.Size, torch.dtype], str] = {}
    return {name: first.setdefault((t.data_ptr(), t.shape, t.dtype), name) for name, t in tensors.items()}
