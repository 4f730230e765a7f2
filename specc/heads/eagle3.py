"""One decoder layer over the states of several layers (Li et al. 2025, EAGLE-3, arXiv:2503.01840).

It departs from the paper in four points, which made it learn faster from little text:

1. The token also enters the residual stream, through a product of its own (`token`). In the paper it enters by
   attention alone.
2. The states that the layer reads are divided by their root mean square, without a weight.
3. The layer's own output becomes the next slot's state through a product (`own`).
4. All three products start from a closed form (specc/training/closed_form.py), and the layer starts at zero.

The settings of a checkpoint from elsewhere switch the first three off.
"""

from __future__ import annotations

import torch
from torch import Tensor

from specc.heads.head import HeadConfig, linear, option, rms_norm
from specc.heads.layer_head import PRODUCT, LayerHead

# What is divided by its root mean square before `fc`: nothing, the states of each tap, or those of all taps together.
NOTHING, EACH, TOGETHER = 0, 1, 2


class Eagle3(LayerHead):
    """A recurrent head of one decoder layer, or of several.

    Args:
        config: its settings are those of `LayerHead`. Optional ones are `tap_norm` (NOTHING, EACH or TOGETHER) and
            `token` (0: the token does not enter the residual stream).
        next_state: what the next slot takes as its state, if the settings do not say.
    """

    def __init__(self, config: HeadConfig, next_state: int = PRODUCT) -> None:
        super().__init__(config, wide=True, input_norm=True, own_product=True, next_state=next_state)
        size = config.target.hidden_size
        self.tap_norm = int(option(config, "tap_norm", EACH))
        self.fc = linear(len(config.taps) * size, size)
        self.token = linear(size, size) if option(config, "token", 1) else None

    def fuse(self, taps: Tensor) -> Tensor:
        state: Tensor = self.fc(normed_taps(taps, len(self.taps), self.tap_norm, self.eps))
        return state

    def join(self, embeddings: Tensor, state: Tensor) -> Tensor:
        return state if self.token is None else state + self.token(rms_norm(embeddings, None, self.eps))


def normed_taps(taps: Tensor, count: int, kind: int, eps: float) -> Tensor:
    """Divide states by their root mean square before a product joins them.

    Args:
        taps: [..., T * d]: the states after several layers, side by side.
        count: T.
        kind: NOTHING, EACH or TOGETHER.
        eps: of the norm.

    Returns:
        [..., T * d].
    """
    if kind == EACH:
        return rms_norm(torch.unflatten(taps, -1, (count, -1)), None, eps).flatten(-2)
    return rms_norm(taps, None, eps) if kind == TOGETHER else taps
