"""A decoder layer of a head.

B  sequences      N  slots      d  the model's hidden size
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, option, rms_norm, setting
from specc.passes import operators  # noqa: F401  registers specc::attention

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]  # queries, keys, values [B, heads, N, size] to [B, heads, N, size]


class Layer(nn.Module):
    """A decoder layer. Its attention reads the residual stream, or the token beside the stream, 2 d wide.

    Args:
        config: its settings are `heads`, `key_heads`, `head_size`, `mlp_size` (0: the layer has no MLP), `rope_theta`
            and `eps`. Optional ones are `bias` (1: queries, keys and values have a bias), `head_norm` (1: each head of
            a query or a key is normed) and `residual_norm` (1: the stream goes on from its norm, where attention reads
            the token too).
        index: names the layer's cache.
        wide: whether attention reads the token.
        input_norm: whether attention reads the norm of the residual stream.
    """

    inverse_frequencies: Tensor
    token_norm: nn.Parameter | None
    state_norm: nn.Parameter | None
    query_norm: nn.Parameter | None
    key_norm: nn.Parameter | None

    def __init__(self, config: HeadConfig, index: int, *, wide: bool = True, input_norm: bool = True) -> None:
        super().__init__()
        size = config.target.hidden_size
        self.index, self.eps = index, setting(config, "eps")
        self.heads, self.key_heads = int(setting(config, "heads")), int(setting(config, "key_heads"))
        self.head_size, mlp_size = int(setting(config, "head_size")), int(setting(config, "mlp_size"))
        self.wide, self.residual_norm = wide, wide and bool(option(config, "residual_norm", 0))
        inputs, bias = 2 * size if wide else size, bool(option(config, "bias", 0))
        self._norms(config, size, wide, input_norm, mlp_size)
        self.query = linear(inputs, self.heads * self.head_size, bias)
        self.key: nn.Module = linear(inputs, self.key_heads * self.head_size, bias)
        self.value: nn.Module = linear(inputs, self.key_heads * self.head_size, bias)
        self.output = linear(self.heads * self.head_size, size)
        self.has_mlp = mlp_size > 0
        if self.has_mlp:
            self.gate, self.up, self.down = linear(size, mlp_size), linear(size, mlp_size), linear(mlp_size, size)
        exponents = torch.arange(0, self.head_size, 2) / self.head_size
        self.register_buffer("inverse_frequencies", setting(config, "rope_theta") ** -exponents, persistent=False)

    def _norms(self, config: HeadConfig, size: int, wide: bool, input_norm: bool, mlp_size: int) -> None:
        head_norm = bool(option(config, "head_norm", 0))
        sizes = {
            "token_norm": size if wide else 0,
            "state_norm": size if input_norm else 0,
            "mlp_norm": size if mlp_size else 0,
            "query_norm": self.head_size if head_norm else 0,
            "key_norm": self.head_size if head_norm else 0,
        }
        for name, numbers in sizes.items():
            self.register_parameter(name, nn.Parameter(torch.ones(numbers)) if numbers else None)

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
        read = x if self.state_norm is None else rms_norm(x, self.state_norm, self.eps)
        x = read if self.residual_norm else x
        if self.wide:
            read = torch.cat([rms_norm(token, self.token_norm, self.eps), read], -1)
        return self.add(x, read, read, position_ids, attend)

    def add(self, x: Tensor, read: Tensor, source: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Add attention and the MLP to the residual stream.

        Args:
            x: [B, N, d]: the residual stream.
            read: what queries are made from.
            source: what keys and values are made from.
            position_ids: [B, N].
            attend: attention among the slots, and to those before.

        Returns:
            The residual stream, [B, N, d].
        """
        return self.after_mlp(self.after_attention(x, read, source, position_ids, attend))

    def after_attention(self, x: Tensor, read: Tensor, source: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Return the residual stream [B, N, d] before the MLP. The arguments are those of `add`."""
        query = self._heads(self.query(read))
        key, value = (self._heads(product(source)) for product in (self.key, self.value))
        if self.query_norm is not None:
            query, key = rms_norm(query, self.query_norm, self.eps), rms_norm(key, self.key_norm, self.eps)
        cos, sin = self.angles(position_ids)
        attended = attend(rotate(query, cos, sin), rotate(key, cos, sin), value)
        out: Tensor = x + self.output(attended.transpose(1, 2).flatten(2))
        return out

    def after_mlp(self, x: Tensor) -> Tensor:
        """Return the residual stream [B, N, d] behind the MLP. A layer without one returns it as it is."""
        return x + self.mlp(rms_norm(x, self.get_parameter("mlp_norm"), self.eps)) if self.has_mlp else x

    def angles(self, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosines and the sines, [B, 1, N, C] each, by which heads turn at positions [B, N]."""
        angles = position_ids[:, None, :, None].float() * torch.cat([self.inverse_frequencies] * 2)
        return angles.cos(), angles.sin()

    def mlp(self, y: Tensor) -> Tensor:
        """Return what the gated MLP adds to the residual stream, [B, N, d]."""
        out: Tensor = self.down(functional.silu(self.gate(y)) * self.up(y))
        return out

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend causally, by the operator that the passes give a cache."""
        out: Tensor = torch.ops.specc.attention(query, key, value, None, self.head_size**-0.5, 0, 0.0, self.index)
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, -1, (-1, self.head_size)).transpose(1, 2)


class RowsLayer(Layer):
    """A decoder layer that also reads rows of the model, between its own attention and its MLP.

    Args:
        config: see `Layer`. The heads are those of the model.
        index: names the layer's own cache.
    """

    def __init__(self, config: HeadConfig, index: int) -> None:
        super().__init__(config, index, wide=False)
        size = config.target.hidden_size
        self.rows_norm = nn.Parameter(torch.ones(size))
        self.rows_query = linear(size, self.heads * self.head_size)
        self.rows_output = linear(self.heads * self.head_size, size)

    def after_rows(self, x: Tensor, position_ids: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the residual stream [B, N, d] behind the attention to rows of the model.

        Args:
            x: [B, N, d]: the residual stream.
            position_ids: [B, N].
            read: attention to the rows: of queries [B, heads, N, size], which are turned by their positions.
        """
        attended = read(self.turned_query(x, position_ids))
        out: Tensor = x + self.rows_output(attended.transpose(1, 2).flatten(2))
        return out

    def turned_query(self, x: Tensor, position_ids: Tensor) -> Tensor:
        """Return the queries to rows of the model, [B, heads, N, size], turned by their positions."""
        query = self._heads(self.rows_query(rms_norm(x, self.rows_norm, self.eps)))
        return rotate(query, *self.angles(position_ids))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each head [B, heads, N, size] by its position's angles (Su et al. 2021, arXiv:2104.09864)."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
