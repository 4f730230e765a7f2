"""What recurrent heads of decoder layers have in common."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import Head, HeadConfig, linear, option, rms_norm, setting
from specc.heads.layer import Attend, Layer

# What the next slot takes as its state: the residual stream, a product of it, or its norm.
STREAM, PRODUCT, NORM = 0, 1, 2


class LayerHead(Head):
    """A recurrent head of decoder layers. A subclass says how the token and the state become the residual stream.

    Args:
        config: its settings are those of `Layer`. Optional ones are `layers` (1), `next_state` (STREAM, PRODUCT or
            NORM) and `final_norm` (0: the logits are made without a norm).
        wide: whether the first layer's attention reads the token beside the stream.
        input_norm: whether the first layer's attention reads the norm of the stream.
        own_product: whether logits are made by a matrix of the head; otherwise by the model's.
    """

    recurrent = True
    norm: nn.Parameter | None

    def __init__(self, config: HeadConfig, *, wide: bool, input_norm: bool, own_product: bool, next_state: int) -> None:
        super().__init__(config)
        size, count = config.target.hidden_size, int(option(config, "layers", 1))
        self.eps, self.borrows_product = setting(config, "eps"), not own_product
        self.next_kind = int(option(config, "next_state", next_state))
        self.own = linear(size, size) if self.next_kind == PRODUCT else None
        first = Layer(config, 0, wide=wide, input_norm=input_norm)
        self.layers = nn.ModuleList([first, *(Layer(config, index, wide=False) for index in range(1, count))])
        is_normed = bool(option(config, "final_norm", 1))
        self.register_parameter("norm", nn.Parameter(torch.ones(size)) if is_normed else None)
        self.head = linear(size, config.draft_vocab_size) if own_product else None

    def join(self, embeddings: Tensor, state: Tensor) -> Tensor:
        """Return the residual stream [B, N, d] before the layers, from embeddings [B, N, d] and states [B, N, s]."""
        raise NotImplementedError

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        x = self.run_layers(input_ids, position_ids, state, [layer.attend for layer in self.decoder_layers()])
        return {"logits": self.logits(x), "state": self.next_state(x)}

    def run_layers(self, input_ids: Tensor, position_ids: Tensor, state: Tensor, attention: list[Attend]) -> Tensor:
        """Return the residual stream behind the layers, [B, N, d].

        Args:
            input_ids: see `forward`.
            position_ids: see `forward`.
            state: see `forward`.
            attention: that of each layer. The trainer has its own, which lets drafts stand on drafts.
        """
        embeddings, state = self.inputs(input_ids, state)
        x = self.join(embeddings, state)
        for layer, attend in zip(self.decoder_layers(), attention, strict=True):
            x = layer(embeddings, x, position_ids, attend)
        return x

    def inputs(self, input_ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the embeddings [B, N, d] and the states [B, N, d] that the layers read."""
        assert self.embedding is not None, "no table was attached"
        return functional.embedding(input_ids, self.embedding), state

    def decoder_layers(self) -> list[Layer]:
        """Return the layers. The list of modules gives each a number in its path, which the passes look for."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, N, V'] of the residual stream."""
        normed = self.normed(x)
        if self.head is not None:
            out: Tensor = self.head(normed)
            return out
        assert self.product is not None, "no table was attached"
        return functional.linear(normed, self.product)

    def next_state(self, x: Tensor) -> Tensor:
        """Return the state [B, N, s] that the residual stream hands to the next slot."""
        if self.own is not None:
            out: Tensor = self.own(rms_norm(x, None, self.eps))
            return out
        return self.normed(x) if self.next_kind == NORM else x

    def normed(self, x: Tensor) -> Tensor:
        """Return what the last product reads, [B, N, d]."""
        return x if self.norm is None else rms_norm(x, self.norm, self.eps)
