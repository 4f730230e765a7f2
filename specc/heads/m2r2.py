"""A residual stream that runs ahead of the model's own (M2R2, Bhendawade et al. 2025, arXiv:2502.02040).

Behind each of the first layers, an adapter of low rank adds to a second stream, so that it moves several times as fast.
After layer k it is near what the model's stream is after layer R * k. So it can leave early, through the model's own
norm and product. The second stream also attends to other tokens, by queries of its own. It shares the keys and values
of the model's layers. A gate attends to latent states of the second stream, one for each layer. It says how likely the
token is right that leaves.

It departs from the paper in one point: experts of mixtures are not loaded ahead of time, since specc keeps no experts
outside the memory that a model runs in. How the paper's second stream makes its queries is not known here. These are
products of low rank, as the adapters are.

B  sequences, one in an engine      N  slots      K  layers that drafts run      d  the model's hidden size
r  numbers of a latent state
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, parts, rms_norm, setting
from specc.heads.in_model import StreamHead
from specc.runtime.block import Layers


class M2R2(StreamHead):
    """A head of one adapter for each of the model's first layers.

    Args:
        config: its taps are the first layers, 0 to K - 1. Its settings are `rank`, `eps`, `latent`, which is r, and
            `heads` and `head_size`, those of the model's attention.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        size, rank, latent = (config.target.hidden_size, int(setting(config, "rank")), int(setting(config, "latent")))
        self.eps, wide = setting(config, "eps"), int(setting(config, "heads")) * int(setting(config, "head_size"))
        self.query_down = nn.ModuleList([linear(size, rank) for _ in config.taps])
        self.query_up = nn.ModuleList([linear(rank, wide) for _ in config.taps])
        self.attended_down = nn.ModuleList([linear(wide, rank) for _ in config.taps])
        self.attended_up = nn.ModuleList([linear(rank, size) for _ in config.taps])
        self.down = nn.ModuleList([linear(2 * size, rank) for _ in config.taps])
        self.up = nn.ModuleList([linear(rank, size) for _ in config.taps])
        self.latents = nn.ModuleList([linear(size, latent) for _ in config.taps])
        self.latent_query, self.score = linear(latent, latent), nn.Linear(latent, 1)

    @property
    def draft_layers(self) -> Layers:
        return Layers(exit_after=len(self.taps), bridge=self.architecture)

    def draft_cost(self, drafted: int, parameters: int) -> float:
        """See `Head`: each token runs the first layers, and verification does not run them again."""
        return super().draft_cost(drafted, parameters) + drafted * len(self.taps) / self.config.target.layers

    @property
    def state_size(self) -> int:
        """See `Head`: the logit of the gate."""
        return 1

    def accelerated(self, states: list[Tensor], attend: Callable[[int, Tensor], Tensor]) -> list[Tensor]:
        """Return the second stream behind each of the first layers, K times [B, N, d].

        Args:
            states: K + 1 of [B, N, d]: the model's stream before the first layer, and behind each.
            attend: lets queries [B, N, heads * size] attend to the rows of a layer, and returns as many numbers.
        """
        fast, streams = states[0], []
        for number, (before, slow) in enumerate(pairwise(states)):
            attended = attend(number, self.ask(number, fast))
            fast = self.move(number, torch.cat([fast, before, slow, attended], -1))
            streams.append(fast)
        return streams

    def ask(self, number: int, fast: Tensor) -> Tensor:
        query: Tensor = self.query_up[number](self.query_down[number](rms_norm(fast, None, self.eps)))
        return query

    def move(self, number: int, joined: Tensor) -> Tensor:
        size = self.config.target.hidden_size
        fast, before, slow, attended = torch.split(joined, [size, size, size, joined.shape[-1] - 3 * size], -1)
        moved = fast + slow - before + self.attended_up[number](self.attended_down[number](attended))
        read = torch.cat([rms_norm(moved, None, self.eps), rms_norm(slow, None, self.eps)], -1)
        result: Tensor = moved + self.up[number](functional.silu(self.down[number](read)))
        return result

    def gate(self, streams: Tensor) -> Tensor:
        """Return the logit of the probability that the token which leaves is the model's, [B, N, 1].

        Args:
            streams: [B, N, K * d]: what `accelerated` returned, side by side.
        """
        by_layer = zip(self.latents, parts(streams, len(self.taps)), strict=True)
        latents = [each(rms_norm(fast, None, self.eps)) for each, fast in by_layer]
        query = self.latent_query(latents[-1]) * latents[-1].shape[-1] ** -0.5
        weights = torch.cat([(query * latent).sum(-1, keepdim=True) for latent in latents], -1).softmax(-1)
        read = latents[-1]
        for number, latent in enumerate(latents):
            read = read + weights[..., number : number + 1] * latent
        out: Tensor = self.score(functional.silu(read))
        return out

    @torch.no_grad()
    def begin(self) -> None:
        """Start as the model's own stream."""
        for up in (*self.up, *self.attended_up):
            assert isinstance(up, nn.Linear)
            up.weight.zero_()
