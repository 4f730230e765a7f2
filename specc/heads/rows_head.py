"""Heads that read the model's rows of keys and values, where the model's cache has them."""

from __future__ import annotations

from torch import Tensor

from specc.heads.head import Head, HeadConfig
from specc.passes import row_operators  # noqa: F401  registers specc::rows_attention


class RowsHead(Head):
    """A head that drafts as a draft model does, token after token, and also sees rows of the model.

    It has no state. Its own rows stand beside the model's, a row for each token.

    Args:
        config: the configuration.
        layer: the layer of the model whose rows it reads.
    """

    def __init__(self, config: HeadConfig, layer: int) -> None:
        super().__init__(config)
        self.read_layer = layer

    @property
    def row_shape(self) -> tuple[int, int]:
        """The heads of keys and values that the model's rows must have, and their size."""
        raise NotImplementedError

    def draft(
        self, input_ids: Tensor, position_ids: Tensor, target_rows: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Return the logits [B, N, V'] of the token after each slot.

        Args:
            input_ids: [B, N] int64.
            position_ids: [B, N] int64.
            target_rows: [1] int64: how many rows the model has.
            keys: [1, G, C, D]: the cache of the layer. The heads may be wider than the model's, filled by zeros.
            values: [1, G, C, D]: the values beside them.
        """
        raise NotImplementedError
