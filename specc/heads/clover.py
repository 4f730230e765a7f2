"""Heads that attend to the drafted token from the guess before it (Xiao et al. 2024, Clover, arXiv:2405.00263).

The guess of one slot is the state of the next: the regressive connection. Decoder layers over the model's states, the
augmenting block, come before. Clover-2 (arXiv:2408.00264) weights what a token says by a cosine, and has an MLP behind.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, option, rms_norm, setting
from specc.heads.sequential import Sequential


class Clover(Sequential):
    """A head whose attention chooses between the guess and the token, by parts of the state.

    Args:
        config: its settings are `parts` (the heads of this attention) and those of `Sequential`. Optional ones are
            `cosine` (1: Clover-2's weights) and `hidden` (the width of Clover-2's MLP; 0 for none).
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        size, hidden = config.target.hidden_size, int(option(config, "hidden", 0))
        self.parts, self.cosine = int(setting(config, "parts")), bool(option(config, "cosine", 0))
        self.query, self.key, self.value, self.output = (linear(size, size) for _ in range(4))
        self.up = nn.Linear(2 * size, hidden) if hidden else None
        self.down = linear(hidden, size) if hidden else None
        for parameter in self.added():
            nn.init.zeros_(parameter)

    def correct(self, x: Tensor, token: Tensor, last: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        guess = rms_norm(x, None, self.eps)
        attend = self._by_cosine if self.cosine else self._by_softmax
        x = x + self.output(attend(self._split(self.query(guess)), guess, token).flatten(-2))
        if self.up is not None and self.down is not None:
            x = x + self.down(functional.silu(self.up(torch.cat([rms_norm(x, None, self.eps), token], -1))))
        return x, memory

    def _by_softmax(self, query: Tensor, guess: Tensor, token: Tensor) -> Tensor:
        """Attend to the guess and to the token. Return [B, N, parts, d / parts]."""
        scale = query.shape[-1] ** -0.5
        scores = [(query * self._split(self.key(y))).sum(-1, keepdim=True) * scale for y in (guess, token)]
        own, other = torch.split(torch.cat(scores, -1).softmax(-1), [1, 1], -1)
        return own * self._split(self.value(guess)) + other * self._split(self.value(token))

    def _by_cosine(self, query: Tensor, guess: Tensor, token: Tensor) -> Tensor:
        """Weight what the token says by the cosine of query and key. Return [B, N, parts, d / parts]."""
        key = self._split(self.key(token))
        weight = (rms_norm(query, None, self.eps) * rms_norm(key, None, self.eps)).mean(-1, keepdim=True)
        result: Tensor = weight * self._split(self.value(token))
        return result

    def _split(self, y: Tensor) -> Tensor:
        return torch.unflatten(y, -1, (self.parts, -1))

    def added(self) -> list[nn.Parameter]:
        products = [self.output] if self.down is None else [self.output, self.down]
        return [parameter for product in products for parameter in product.parameters()]
