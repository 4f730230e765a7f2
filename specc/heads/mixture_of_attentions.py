"""A mixture of three attentions (Zimmer et al. 2024, Mixture of Attentions For Speculative Decoding, arXiv:2410.03804).

Layer self-attention looks at one token's states after several layers of the model, and joins them to one. It runs where
the model runs, once for each token. Self-attention then looks at the tokens, drafted ones included. Cross-attention
reads the joined states. A drafted token has none, so it stands beside the last one that the model gave: all drafts of a
step stand on what the model said, and never on the head's own states.

It departs from the paper in four points:

1. Layer self-attention reads states after layers, and not the keys and values that the model makes from them.
2. It reads six layers at most, so that recordings for training stay small; the paper reads all.
3. The joined state also enters the residual stream, and the mean over the layers is a product. So a closed form can
   start both (specc/training/mixture_of_attentions.py). Each of the two attentions over tokens has an MLP.
4. There is no target layer inference: the last layers of the model never run for a draft.

T  layers that are read      H  heads      C  size of a head
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specc.heads.head import HeadConfig, linear, rms_norm
from specc.heads.layer import Attend
from specc.heads.layer_head import STREAM, LayerHead
from specc.heads.tandem import TandemLayer


class MixtureOfAttentions(LayerHead):
    """A head whose drafts stand on the last state that the model gave.

    Args:
        config: its settings are those of `Layer`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, wide=False, input_norm=True, own_product=True, next_state=STREAM)
        size, taps = config.target.hidden_size, len(config.taps)
        self.layers.append(TandemLayer(config, 1))
        self.heads, self.head_size = self.decoder_layers()[0].heads, self.decoder_layers()[0].head_size
        width = self.heads * self.head_size
        self.place = nn.Parameter(torch.zeros(taps, size))
        self.query, self.key, self.value = linear(size, width), linear(size, width), linear(size, width)
        self.mix = linear(width, size)
        self.fc = linear(taps * size, size)
        self.token = linear(size, size)

    def fuse(self, taps: Tensor) -> Tensor:
        states = rms_norm(torch.unflatten(taps, -1, (len(self.taps), -1)), None, self.eps)
        out: Tensor = self.fc((states + self.attend_to_layers(states)).flatten(-2))
        return out

    def attend_to_layers(self, states: Tensor) -> Tensor:
        """Let the states of a token after all layers look at one another.

        Args:
            states: [B, N, T, d].

        Returns:
            What is added to them, [B, N, T, d].
        """
        read = states + self.place
        query, key, value = (self._split(product(read)) for product in (self.query, self.key, self.value))
        weights = (query @ key.transpose(-1, -2) * self.head_size**-0.5).softmax(-1)
        out: Tensor = self.mix((weights @ value).transpose(-2, -3).flatten(-2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """Return [B, N, T, H * C] as [B, N, H, T, C]."""
        return torch.unflatten(x, -1, (self.heads, self.head_size)).transpose(-2, -3)

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        x = self.run_layers(input_ids, position_ids, state, [layer.attend for layer in self.decoder_layers()])
        return {"logits": self.logits(x), "state": state}

    def run_layers(self, input_ids: Tensor, position_ids: Tensor, state: Tensor, attention: list[Attend]) -> Tensor:
        embeddings, state = self.inputs(input_ids, state)
        own, cross = self.decoder_layers()
        x = own(embeddings, self.token(rms_norm(embeddings, None, self.eps)), position_ids, attention[0])
        out: Tensor = cross(state, x + state, position_ids, attention[1])
        return out
