"""An adapter behind an early exit (Kangaroo, Liu et al. 2024, arXiv:2404.18911).

It is one attention layer between two norms, without an MLP. It reads the model's states after its first layers, and the
model's own product turns what it returns into logits. The first layers run each drafted token, so a draft stands on
states of the model, and never on the adapter's own.

Row i of its cache is token i beside the state at token i.

It departs from the paper in one point: the residual stream begins with the state's norm, which changes no choice of the
exit. So it may read a state or its norm, and the engines of the model return the norm.
"""

from __future__ import annotations

from torch import Tensor

from specc.heads.head import HeadConfig, rms_norm
from specc.heads.layer_head import STREAM, LayerHead


class Kangaroo(LayerHead):
    """An attention layer over the states at an early exit.

    Args:
        config: its one tap is the last of the first layers. Its settings are those of `LayerHead`, with an `mlp_size`
            of 0.
    """

    recurrent = False

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, wide=False, input_norm=True, own_product=False, next_state=STREAM)

    def fuse(self, taps: Tensor) -> Tensor:
        return rms_norm(taps, None, self.eps)

    def join(self, embeddings: Tensor, state: Tensor) -> Tensor:
        return rms_norm(state, None, self.eps)

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(input_ids, position_ids, state)["logits"]}
