"""Attention of a block that stands behind a text, in torch: what the mask of an engine says of its slots."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from specc.heads.layer import Attend
from specc.runtime.call import Growth


def block_attention(rows: int, block: int, hidden: tuple[int, int] | None = None) -> Attend:
    """Return attention of a text and of a block behind it, whose slots see the text and one another.

    Args:
        rows: tokens of the text.
        block: slots of the block.
        hidden: a slot of the block, and one that it does not see.
    """
    visible = Growth.block(rows, block).visible
    mask = torch.tensor([[*row.ljust(rows + block, b"\0")] for row in visible], dtype=torch.bool)
    if hidden is not None:
        mask[rows + hidden[0], rows + hidden[1]] = False

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return scaled_dot_product_attention(query, key, value, mask, enable_gqa=True)

    return attend
