"""Heads that are a part of the model's own run, so that no block is theirs alone.

B  sequences, one in an engine      N  slots      T  layers that are read      d  the model's hidden size
"""

from __future__ import annotations

from torch import Tensor

from specc.heads.head import Head
from specc.runtime.block import Layers


class InModelHead(Head):
    """A head whose drafts are made by the model's own layers and by its last product, or by some of these layers.

    Attributes:
        bridge_taps: the layers whose states `bridge` reads; none if the drafts run all layers.
    """

    attends = False
    borrows_product = True
    bridge_taps: tuple[int, ...] = ()

    @property
    def draft_layers(self) -> Layers:
        """The layers that drafts run."""
        return Layers()

    def bridge(self, states: Tensor) -> Tensor:
        """Return what stands in the place of the layers that drafts leave out, [B, N, d].

        Args:
            states: [B, N, T * d]: the states after the layers `bridge_taps`, side by side.
        """
        raise NotImplementedError


class StreamHead(InModelHead):
    """A head with a second residual stream beside that of the model's first layers, K of them.

    Its blocks return a state, which a gate makes of the second stream.
    """

    def ask(self, number: int, fast: Tensor) -> Tensor:
        """Return the queries with which the second stream attends to a layer's rows, [B, N, heads * size].

        Args:
            number: the layer.
            fast: [B, N, d]: the second stream before the layer.
        """
        raise NotImplementedError

    def move(self, number: int, joined: Tensor) -> Tensor:
        """Return the second stream behind a layer, [B, N, d].

        Args:
            number: the layer.
            joined: [B, N, 3 d + heads * size]: the second stream and the model's before the layer, the model's behind
                it, and what the second stream attended to, side by side.
        """
        raise NotImplementedError

    def gate(self, streams: Tensor) -> Tensor:
        """Return the state, [B, N, s], of the second stream behind each of the first layers, [B, N, K * d]."""
        raise NotImplementedError
