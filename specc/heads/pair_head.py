"""A head whose slot makes two states, which its cache keeps side by side.

B  sequences, one in an engine      N  slots      d  the model's hidden size
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from specc.heads.eagle import Eagle
from specc.heads.head import HeadConfig


class PairHead(Eagle):
    """A layer of EAGLE's that reads the first of two states. A slot of the model's own has zeros as its second state.

    Args:
        config: its settings are those of `Eagle`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.size = config.target.hidden_size

    @property
    def state_size(self) -> int:
        return 2 * self.size

    def fuse(self, taps: Tensor) -> Tensor:
        return functional.pad(taps, (0, self.size))

    def inputs(self, input_ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return super().inputs(input_ids, state[..., : self.size])
