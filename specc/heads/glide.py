"""A draft layer that reads the model's keys and values (Du et al. 2024, GliDe with a CaPE, arXiv:2402.02082).

Between its own attention and its MLP the layer attends to the rows of a layer of the model, as the model's cache has
them: only a query and an output are new. A drafted token sees the rows of all verified tokens.

It departs from the paper in three points:

1. Tokens enter by the model's own table and a product, and leave by the model's own last product, so that little text
   is enough to learn from.
2. A slot sees the rows before its position, in training too, and not those of earlier blocks of five. So each depth of
   a draft is trained at each place (specc/training/glide.py).
3. 'specc train' lets it read a layer behind the first quarter of the model; the paper's reads the last one.

B  sequences      N  slots      C  capacity      H  heads      G  heads of keys and values      D  size of a head
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, option, rms_norm, setting
from specc.heads.layer import Attend, RowsLayer
from specc.heads.rows_head import RowsHead


class Glide(RowsHead):
    """A head of one decoder layer.

    Args:
        config: its settings are those of `Layer`. An optional one is `read_layer`, whose rows it reads; by default the
            last one's.
    """

    borrows_product = True

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, layer=int(option(config, "read_layer", config.target.layers - 1)))
        size = config.target.hidden_size
        self.eps = setting(config, "eps")
        self.token = linear(size, size)
        # The cache of the layer stands beside those of the model's layers, so it has the next number.
        self.layers = nn.ModuleList([RowsLayer(config, config.target.layers)])
        self.norm = nn.Parameter(torch.ones(size))

    @property
    def row_shape(self) -> tuple[int, int]:
        return self.layer.key_heads, self.layer.head_size

    @property
    def layer(self) -> RowsLayer:
        """The decoder layer."""
        layer = self.layers[0]
        assert isinstance(layer, RowsLayer)
        return layer

    def draft(
        self, input_ids: Tensor, position_ids: Tensor, target_rows: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        def read(query: Tensor) -> Tensor:
            scale, size = query.shape[-1] ** -0.5, query.shape[-1]
            wide = functional.pad(query, (0, keys.shape[-1] - size))  # A cache may have wider heads, filled by zeros.
            out: Tensor = torch.ops.specc.rows_attention(wide, keys, values, target_rows, position_ids, scale)
            return out[..., :size]

        x = self.stream(input_ids, position_ids, self.layer.attend)
        return self.logits(self.finish(x, position_ids, read))

    def stream(self, input_ids: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Return the residual stream [B, N, d] before the rows of the model are read."""
        assert self.embedding is not None, "no table was attached"
        embeddings = functional.embedding(input_ids, self.embedding)
        x = self.token(rms_norm(embeddings, None, self.eps))
        read = rms_norm(x, self.layer.state_norm, self.eps)
        return self.layer.after_attention(x, read, read, position_ids, attend)

    def finish(self, x: Tensor, position_ids: Tensor, read: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the residual stream [B, N, d] behind the layer, from what `stream` returned.

        Args:
            x: [B, N, d]: that stream.
            position_ids: [B, N].
            read: attention to the rows of the model; see `RowsLayer.after_rows`.
        """
        return self.layer.after_mlp(self.layer.after_rows(x, position_ids, read))

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, N, V'] of the residual stream."""
        assert self.product is not None, "no table was attached"
        return functional.linear(rms_norm(x, self.norm, self.eps), self.product)
