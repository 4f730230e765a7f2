"""One decoder layer over the states of several layers (Li et al. 2025, EAGLE-3, arXiv:2503.01840).

It departs from the paper in four points, which made it learn faster from little text:

1. The token also enters the residual stream, through a product of its own (`token`). In the paper it enters by
   attention alone.
2. The states that the layer reads are divided by their root mean square, without a weight.
3. The layer's own output becomes the next slot's state through a product (`own`).
4. All three products start from a closed form (specc/training/closed_form.py), and the layer starts at zero.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import Head, HeadConfig, linear, rms_norm, setting
from specc.passes import operators  # noqa: F401  registers specc::attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys, values [B, heads, N, size] to [B, heads, N, size]


class Layer(nn.Module):
    """A decoder layer whose attention reads the token beside the state, 2 d wide.

    Args:
        config: its settings are `heads`, `key_heads`, `head_size`, `mlp_size`, `rope_theta` and `eps`.
        index: names the layer's cache.
    """

    inverse_frequencies: Tensor

    def __init__(self, config: HeadConfig, index: int) -> None:
        super().__init__()
        size = config.target.hidden_size
        self.index, self.eps = index, setting(config, "eps")
        self.heads, self.key_heads = int(setting(config, "heads")), int(setting(config, "key_heads"))
        self.head_size, mlp_size = int(setting(config, "head_size")), int(setting(config, "mlp_size"))
        self.token_norm, self.state_norm = nn.Parameter(torch.ones(size)), nn.Parameter(torch.ones(size))
        self.mlp_norm = nn.Parameter(torch.ones(size))
        self.query = linear(2 * size, self.heads * self.head_size)
        self.key = linear(2 * size, self.key_heads * self.head_size)
        self.value = linear(2 * size, self.key_heads * self.head_size)
        self.output = linear(self.heads * self.head_size, size)
        self.gate, self.up, self.down = linear(size, mlp_size), linear(size, mlp_size), linear(mlp_size, size)
        exponents = torch.arange(0, self.head_size, 2) / self.head_size
        self.register_buffer("inverse_frequencies", setting(config, "rope_theta") ** -exponents, persistent=False)

    def forward(self, token: Tensor, x: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Run the layer.

        Args:
            token: [B, N, d]: the embeddings.
            x: [B, N, d]: the residual stream.
            position_ids: [B, N].
            attend: attention among the slots, and to those before.

        Returns:
            The residual stream, [B, N, d].
        """
        wide = torch.cat([rms_norm(token, self.token_norm, self.eps), rms_norm(x, self.state_norm, self.eps)], -1)
        query, key, value = (self._heads(product(wide)) for product in (self.query, self.key, self.value))
        angles = position_ids[:, None, :, None].float() * torch.cat([self.inverse_frequencies] * 2)
        cos, sin = angles.cos(), angles.sin()
        attended = attend(_rotate(query, cos, sin), _rotate(key, cos, sin), value)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        y = rms_norm(x, self.mlp_norm, self.eps)
        out: Tensor = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return out

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend causally, by the operator that the passes give a cache."""
        out: Tensor = torch.ops.specc.attention(query, key, value, None, self.head_size**-0.5, 0, 0.0, self.index)
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (-1, self.head_size)).transpose(1, 2)


class Eagle3(Head):
    """A recurrent head of one decoder layer."""

    recurrent = True

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        size = config.target.hidden_size
        self.eps = setting(config, "eps")
        self.fc = linear(len(config.taps) * size, size)
        self.token = linear(size, size)
        self.own = linear(size, size)
        self.layers = nn.ModuleList([Layer(config, 0)])
        self.norm = nn.Parameter(torch.ones(size))
        self.head = linear(size, config.draft_vocab_size)

    def fuse(self, taps: Tensor) -> Tensor:
        states = rms_norm(torch.unflatten(taps, -1, (len(self.taps), -1)), None, self.eps)
        state: Tensor = self.fc(states.flatten(-2))
        return state

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
        assert self.embedding is not None, "no table was attached"
        embeddings = functional.embedding(input_ids, self.embedding)
        x: Tensor = state + self.token(rms_norm(embeddings, None, self.eps))
        for layer, attend in zip(self.decoder_layers(), attention, strict=True):
            x = layer(embeddings, x, position_ids, attend)
        return x

    def decoder_layers(self) -> list[Layer]:
        """Return the layers. The list of modules gives each a number in its path, which the passes look for."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, N, V'] of the residual stream."""
        out: Tensor = self.head(rms_norm(x, self.norm, self.eps))
        return out

    def next_state(self, x: Tensor) -> Tensor:
        """Return the state [B, N, s] that the residual stream hands to the next slot."""
        out: Tensor = self.own(rms_norm(x, None, self.eps))
        return out


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each head by its position's angles (Su et al. 2021, arXiv:2104.09864)."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
