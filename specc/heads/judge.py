"""A head that judges tokens and drafts none (Judge Decoding, Bachmann et al. 2025, arXiv:2501.19309).

One linear layer reads the state that the model's last product reads, after a token. Its one number is the logit of the
probability that the token is good. It is the state that the model's engines return, so that verifying a draft also
judges its tokens.
"""

from __future__ import annotations

from torch import Tensor, nn

from specc.heads.head import Head, HeadConfig


class Judge(Head):
    """A linear layer over the model's last state.

    Args:
        config: its one tap is the number of layers, which stands for the state behind the last norm.
    """

    attends = False

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.target.hidden_size, 1)

    @property
    def state_size(self) -> int:
        return 1

    def fuse(self, taps: Tensor) -> Tensor:
        out: Tensor = self.score(taps)
        return out

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Return the state: this head has no guesses, and no recipe runs it as a block."""
        return {"logits": state}
