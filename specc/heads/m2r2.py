"""A residual stream that runs ahead of the model's own (M2R2, Bhendawade et al. 2025, arXiv:2502.02040).

Behind each of the first layers, an adapter of low rank adds to a second stream, so that it moves several times as fast.
After layer k it is near what the model's stream is after layer R * k. So it can leave early, through the model's own
norm and product. A gate attends to latent states of the second stream, one for each layer. It says how likely the token
is right that leaves.

It departs from the paper in these points:

1. The second stream has no attention of its own to other tokens. It takes what the layer adds to the model's stream,
   and the adapter adds what is missing.
2. Experts of mixtures are not loaded ahead of time: specc keeps no experts outside the memory that a model runs in.

B  sequences, one in an engine      N  slots      K  layers that drafts run      d  the model's hidden size
r  numbers of a latent state
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
        config: its taps are the first layers, 0 to K - 1. Its settings are `rank`, `eps` and `latent`, which is r.
    """

    has_state = True

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        size, rank = config.target.hidden_size, int(setting(config, "rank"))
        self.eps, self.bridge_taps = setting(config, "eps"), config.taps
        self.down = nn.ModuleList([linear(2 * size, rank) for _ in config.taps])
        self.up = nn.ModuleList([linear(rank, size) for _ in config.taps])
        latent = int(setting(config, "latent"))
        self.latents = nn.ModuleList([linear(size, latent) for _ in config.taps])
        self.query, self.score = linear(latent, latent), nn.Linear(latent, 1)

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

    @property
    def state_size(self) -> int:
        """See `Head`: the logit of the gate."""
        return 1

    def fuse(self, taps: Tensor) -> Tensor:
        return self.gate(self.accelerated(taps))

    def gate(self, streams: list[Tensor]) -> Tensor:
        """Return the logit of the probability that the token which leaves is the model's, [B, N, 1].

        Args:
            streams: what `accelerated` returned.
        """
        latents = [each(rms_norm(fast, None, self.eps)) for each, fast in zip(self.latents, streams, strict=True)]
        query = self.query(latents[-1]) * latents[-1].shape[-1] ** -0.5
        weights = torch.cat([(query * latent).sum(-1, keepdim=True) for latent in latents], -1).softmax(-1)
        read = latents[-1]
        for number, latent in enumerate(latents):
            read = read + weights[..., number : number + 1] * latent
        out: Tensor = self.score(functional.silu(read))
        return out

    def bridge(self, states: Tensor) -> Tensor:
        return self.accelerated(states)[-1]

    @torch.no_grad()
    def begin(self) -> None:
        """Start as the model's own stream."""
        for up in self.up:
            assert isinstance(up, nn.Linear)
            up.weight.zero_()
