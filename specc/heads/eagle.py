"""One decoder layer over a product of the token and the last state.

EAGLE (Li et al. 2024, arXiv:2401.15077) and EAGLE-2 (arXiv:2406.16858) have no norms: the layer guesses the state that
the model's last product will read next, and this product makes the logits. A module for multi-token prediction of
DeepSeek-V3 (arXiv:2412.19437) norms the token, the state and what it returns. One module is run again for each depth.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specc.heads.head import HeadConfig, linear, option, rms_norm
from specc.heads.layer_head import STREAM, LayerHead


class Eagle(LayerHead):
    """A recurrent head whose residual stream is a product of the token beside the state.

    Args:
        config: its settings are those of `LayerHead`. Optional ones are `token_norm` and `state_norm` (1: that part is
            normed before the product), `input_norm` (1: the layer's attention reads the norm of the stream),
            `fusion_bias` (1: the product has a bias) and `own_product` (1: the head has a matrix for its logits).
        next_state: what the next slot takes as its state, if the settings do not say.
    """

    token_norm: nn.Parameter | None
    state_norm: nn.Parameter | None

    def __init__(self, config: HeadConfig, next_state: int = STREAM) -> None:
        super().__init__(
            config,
            wide=False,
            input_norm=bool(option(config, "input_norm", 0)),
            own_product=bool(option(config, "own_product", 0)),
            next_state=next_state,
        )
        size = config.target.hidden_size
        for name in ("token_norm", "state_norm"):
            self.register_parameter(name, nn.Parameter(torch.ones(size)) if option(config, name, 0) else None)
        self.fc = linear(2 * size, size, bool(option(config, "fusion_bias", 0)))

    def fuse(self, taps: Tensor) -> Tensor:
        return taps

    def join(self, embeddings: Tensor, state: Tensor) -> Tensor:
        token = embeddings if self.token_norm is None else rms_norm(embeddings, self.token_norm, self.eps)
        state = state if self.state_norm is None else rms_norm(state, self.state_norm, self.eps)
        x: Tensor = self.fc(torch.cat([token, state], -1))
        return x
