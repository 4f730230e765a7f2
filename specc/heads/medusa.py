"""Heads that guess the tokens behind the next one, each from the last state (Cai et al. 2024, arXiv:2401.10774).

Head k is a residual block and a product. Its block starts at zero and its product as the model's own, as in the paper.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, setting
from specc.heads.layer import Attend
from specc.heads.stacked import Stacked


class Medusa(Stacked):
    """K heads, each with a residual block, over the model's last state after its norm.

    Args:
        config: its settings are `heads` and `eps`. An optional one is `norm` (0: the tap lies behind the model's norm).
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, int(setting(config, "heads")))
        size, count = config.target.hidden_size, self.count
        self.blocks = nn.ModuleList(nn.Linear(size, size) for _ in range(count))
        self.heads = nn.ModuleList(linear(size, config.draft_vocab_size) for _ in range(count))
        for parameter in self.added():
            nn.init.zeros_(parameter)

    def features(self, input_ids: Tensor, position_ids: Tensor, state: Tensor, attention: list[Attend]) -> list[Tensor]:
        return [state + functional.silu(block(state)) for block in self.blocks]

    def added(self) -> list[nn.Parameter]:
        return list(self.blocks.parameters())

    def product_of(self, depth: int) -> nn.Linear:
        head = self.heads[depth]
        assert isinstance(head, nn.Linear)
        return head
