"""Heads of one wide hidden layer under the model's own last product (Stern et al. 2018, Blockwise, arXiv:1811.03115).

The hidden layer reads the last state. Its second product has K parts, and each part plus the state is a guess.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, setting
from specc.heads.layer import Attend
from specc.heads.stacked import SharedProduct


class Blockwise(SharedProduct):
    """K guesses of one hidden layer, over the model's last state after its norm.

    Args:
        config: its settings are `heads`, `hidden` (the width of the hidden layer) and `eps`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, int(setting(config, "heads")))
        size = config.target.hidden_size
        self.hidden = nn.Linear(size, int(setting(config, "hidden")))
        self.parts = nn.Linear(self.hidden.out_features, self.count * size)
        for parameter in self.added():
            nn.init.zeros_(parameter)

    def features(self, input_ids: Tensor, position_ids: Tensor, state: Tensor, attention: list[Attend]) -> list[Tensor]:
        parts = self.parts(functional.relu(self.hidden(state)))
        return [state + part for part in parts.chunk(self.count, -1)]

    def added(self) -> list[nn.Parameter]:
        return list(self.parts.parameters())
