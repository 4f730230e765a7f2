"""Heads that guess several tokens from one state (Medusa, Cai et al. 2024, arXiv:2401.10774)."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence as Tokens

from ..call import Call
from ..draft import Draft, Outputs
from ..draft_head import reading_engines, running_head
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, Drafting, Proposal


class Medusa(Drafter):
    """A drafter that fills one static tree: a child of rank r in level d gets the r-th likeliest token of head d."""

    def __init__(
        self, draft: Engine, tree: Tokens[int], feed: Engine | None = None, prefill: Engine | None = None
    ) -> None:
        """Keep the engines and the tree.

        Args:
            draft: the engine of the stacked heads, with one slot.
            tree: the parent vector that is baked into the verify engine.
            feed: an engine of the head for the tokens of a step, if the head attends to the text.
            prefill: an engine of the head for many tokens.
        """
        self.engine, self.tree = draft, Tree(tuple(tree))
        self.readers = [engine for engine in (feed, prefill) if engine is not None]
        self.places = list(zip((self.tree.depth - 1).tolist(), self.tree.rank, strict=True))[1:]

    def open(self, seq: Sequence) -> MedusaDrafting:
        return MedusaDrafting(self, seq)


class MedusaDrafting(Drafting[Medusa]):
    """The trees of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        outputs = (yield from self._outputs()) if room else None
        if outputs is None:
            return Draft.chain([seq.pending])
        assert outputs.top_ids_NK is not None
        tokens_DK = outputs.top_ids_NK[0]
        return Draft((seq.pending, *(int(tokens_DK[place]) for place in drafter.places)), drafter.tree)

    def _outputs(self) -> Generator[Call, Outputs, Outputs | None]:
        """Yield the calls that run the pending token, and return its outputs; None if no state is before it."""
        engine, readers = self.drafter.engine, self.drafter.readers
        root = yield from running_head(reading_engines(engine, *readers) if readers else [engine], self.seq)
        return None if root is None else root.outputs
