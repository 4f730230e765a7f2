"""Early-exit self-speculation on a static tree.

The draft runs the target's first layers, then the target's own norm and head (LayerSkip, Elhoushi et al. 2024,
arXiv:2404.16710). Its likeliest tokens fill a static tree (Medusa, Cai et al. 2024, arXiv:2401.10774).
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from ..engine import Engine
from .static_tree import StaticTree


class EarlyExit(StaticTree):
    """A drafter that fills one static tree by an engine over the target's cache."""

    def __init__(self, draft: Engine, tree: Tokens[int], sample: bool = False) -> None:
        """Plan the engine calls that fill the tree.

        Args:
            draft: a Frontier engine over the target's cache.
            tree: the parent vector that is baked into the verify engine.
            sample: draw the siblings without replacement if the request samples.
        """
        super().__init__(draft, tree, sample=sample)
