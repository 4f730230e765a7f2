"""A small model that attends to the states of a large one (Tandem Transformers, Aishwarya et al., arXiv:2402.08644).

The model that is decoded is the large one. The head is the small one: some decoder layers with a vocabulary of their
own. The keys and values of a token that the model has run are made from the model's states of that token: each layer of
the head reads those after one layer of the model, through a product. Tokens that the model has not run yet, those of
the draft, have keys and values from the head's own residual stream.

It departs from the paper in these points:

1. The model stays as it is, and the head is trained; the paper trains both.
2. A product takes the place of the paper's feed-forward layer between the two. So does one between the stream of a
   drafted token and the states that it hands on.
3. A token does not attend to itself, but to those before it. What it says is in its residual stream.
4. Tokens enter by the model's own table and a product, so that a closed form can start the head.

B  sequences, one in an engine      N  slots      T  taps, and layers of the head      d  the model's hidden size
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specc.heads.head import HeadConfig, linear, parts, rms_norm
from specc.heads.layer import Attend, Layer
from specc.heads.layer_head import STREAM, LayerHead


class TandemLayer(Layer):
    """A decoder layer whose queries read the residual stream, and whose keys and values read other states.

    Args:
        config: see `Layer`.
        index: see `Layer`.
    """

    def __init__(self, config: HeadConfig, index: int) -> None:
        super().__init__(config, index, wide=False)
        self.source_norm = nn.Parameter(torch.ones(config.target.hidden_size))

    def forward(self, token: Tensor, x: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Run the layer. See `Layer`, but for `token`.

        Args:
            token: [B, N, d]: the states of the tokens before, from which keys and values are made.
            x: [B, N, d]: the residual stream.
            position_ids: [B, N].
            attend: attention among the slots, and to those before.
        """
        read = rms_norm(x, self.state_norm, self.eps)
        return self.add(x, read, rms_norm(token, self.source_norm, self.eps), position_ids, attend)


class Tandem(LayerHead):
    """A recurrent head whose state of a token is what its layers make keys and values from, [B, N, T * d].

    Args:
        config: its settings are those of `LayerHead`. It has as many layers as taps.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, wide=False, input_norm=True, own_product=True, next_state=STREAM)
        size = config.target.hidden_size
        self.layers = nn.ModuleList([TandemLayer(config, index) for index in range(len(config.taps))])
        self.projections = nn.ModuleList([linear(size, size) for _ in config.taps])
        self.own_states = nn.ModuleList([linear(size, size) for _ in config.taps])
        self.token = linear(size, size)

    @property
    def state_size(self) -> int:
        return len(self.taps) * self.config.target.hidden_size

    def fuse(self, taps: Tensor) -> Tensor:
        pairs = zip(self.projections, parts(taps, len(self.taps)), strict=True)
        return torch.cat([project(rms_norm(part, None, self.eps)) for project, part in pairs], -1)

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        attention: list[Attend] = [layer.attend for layer in self.decoder_layers()]
        x, own = self.run_tandem(input_ids, position_ids, state, attention)
        return {"logits": self.logits(x), "state": own}

    def run_tandem(
        self, input_ids: Tensor, position_ids: Tensor, state: Tensor, attention: list[Attend]
    ) -> tuple[Tensor, Tensor]:
        """Run the layers.

        Args:
            input_ids: see `forward`.
            position_ids: see `forward`.
            state: see `forward`.
            attention: that of each layer. The trainer has its own, which lets drafts stand on drafts.

        Returns:
            The residual stream behind the layers [B, N, d], and the head's own states of these tokens [B, N, T * d].
        """
        embeddings, _ = self.inputs(input_ids, state)
        x, own = self.token(rms_norm(embeddings, None, self.eps)), []
        sources = parts(state, len(self.taps))
        for layer, product, source, attend in zip(
            self.decoder_layers(), self.own_states, sources, attention, strict=True
        ):
            own.append(product(rms_norm(x, None, self.eps)))
            x = layer(source, x, position_ids, attend)
        return x, torch.cat(own, -1)
