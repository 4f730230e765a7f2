"""A layer that makes two tokens in one call (Falcon, Gao et al. 2024, arXiv:2412.12639).

A slot guesses the state behind its token, and from it the state one place further. The second state is coupled to the
first by a gated product. The next call runs both tokens at once, in two slots that stand on these two states.

It departs from the paper in one point. There two LSTM layers, and attention among the slots of a block in both
directions, let two slots make two states. Here one slot makes both, so that rows can be cached one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from specc.heads.head import HeadConfig, linear
from specc.heads.pair_head import PairHead


class Falcon(PairHead):
    """A head that makes two tokens, and the states of the slots behind them, side by side.

    Args:
        config: its settings are those of `Eagle`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.gate, self.up, self.down = (linear(self.size, self.size) for _ in range(3))

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        x = self.run_layers(input_ids, position_ids, state, [layer.attend for layer in self.decoder_layers()])
        pair = (x, self.second(x))
        # One product makes both logits, so that a pass can keep one row before it.
        logits = self.logits(torch.stack(pair, -2))
        return {"logits": logits, "state": torch.cat([self.next_state(part) for part in pair], -1)}

    def second(self, x: Tensor) -> Tensor:
        """Return the residual stream one place further, [B, N, d]."""
        out: Tensor = x + self.down(functional.silu(self.gate(x)) * self.up(x))
        return out
