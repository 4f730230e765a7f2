"""A residual stream that runs ahead of the model's own (M2R2, Bhendawade et al. 2025, arXiv:2502.02040).

Behind each of the first layers, an adapter of low rank adds to a second stream, so that it moves several times as fast.
After layer k it is near what the model's stream is after layer R * k. So it can leave early, through the model's own
norm and product.

It departs from the paper in these points:

1. The second stream has no attention of its own. It takes what the layer adds to the model's stream, and the adapter
   adds what is missing.
2. The paper's gate, which decides whether a token leaves, reads latent states of the layers. Here the probability of
   the drafted token decides.

B  sequences, one in an engine      N  slots      K  layers that drafts run      d  the model's hidden size
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, parts, rms_norm, setting
from specc.heads.in_model import InModelHead
from specc.runtime.block import Layers


class M2R2(InModelHead):
    """A head of one adapter for each of the model's first layers.

    Args:
        config: its taps are the first layers, 0 to K - 1. Its settings are `rank` and `eps`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        size, rank = config.target.hidden_size, int(setting(config, "rank"))
        self.eps, self.bridge_taps = setting(config, "eps"), config.taps
        self.down = nn.ModuleList([linear(2 * size, rank) for _ in config.taps])
        self.up = nn.ModuleList([linear(rank, size) for _ in config.taps])

    @property
    def draft_layers(self) -> Layers:
        return Layers(exit_after=len(self.taps), bridge=self.architecture)

    def draft_cost(self, drafted: int, parameters: int) -> float:
        """See `Head`: each token runs the first layers, and verification does not run them again."""
        return super().draft_cost(drafted, parameters) + drafted * len(self.taps) / self.config.target.layers

    def accelerated(self, states: Tensor) -> list[Tensor]:
        """Return the second stream after each of the first layers, K times [B, N, d].

        Args:
            states: [B, N, K * d]: the model's stream after each of these layers, side by side.
        """
        streams: list[Tensor] = []
        before = fast = None
        for slow, down, up in zip(parts(states, len(self.taps)), self.down, self.up, strict=True):
            moved = slow if fast is None or before is None else fast + slow - before
            read = torch.cat([rms_norm(moved, None, self.eps), rms_norm(slow, None, self.eps)], -1)
            before, fast = slow, moved + up(functional.silu(down(read)))
            streams.append(fast)
        return streams

    def bridge(self, states: Tensor) -> Tensor:
        return self.accelerated(states)[-1]

    @torch.no_grad()
    def begin(self) -> None:
        """Start as the model's own stream."""
        for up in self.up:
            assert isinstance(up, nn.Linear)
            up.weight.zero_()
