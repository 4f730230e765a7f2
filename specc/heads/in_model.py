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
        has_state: whether blocks of the model can return what `fuse` makes of the states after the head's taps.
        bridge_taps: the layers whose states `bridge` reads; none if the drafts run all layers.
    """

    attends = False
    borrows_product = True
    has_state = False
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
