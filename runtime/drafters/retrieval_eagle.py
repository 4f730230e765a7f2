"""RASD over EAGLE-2's trained head (Quan et al. 2025, arXiv:2503.03434; Li et al. 2024, arXiv:2406.16858)."""

from __future__ import annotations

from pathlib import Path

from ..engine import Engine
from ..sequence import Sequence
from . import Proposal, check_counts
from .eagle_tree import EagleTree, EagleTreeDrafting
from .retrieval_tree import Retrieval, fused
from .trigram_search import merged


class RetrievalEagle(EagleTree):
    """A drafter that fuses a tree from a corpus with the tree of a trained head.

    Retrieved branches are dropped if the head finds their first token unlikely. Nodes with one path are one node.
    """

    files = ("corpus",)

    def __init__(
        self,
        corpus: Path,
        vocab_size: int,
        draft: Engine,
        feed: Engine,
        prefill: Engine,
        num_speculative_tokens: int = 15,
        retrieved_tokens: int = 8,
        max_matching_ngram_size: int = 8,
        max_depth: int = 5,
    ) -> None:
        """Open the index, and keep the engines and the parameters.

        Args:
            corpus: the index.
            vocab_size: token ids are below it.
            draft: a Frontier engine of the head.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            num_speculative_tokens: nodes of the draft at most.
            retrieved_tokens: those of them that come from the corpus at most.
            max_matching_ngram_size: tokens of the longest end of the text that is looked up.
            max_depth: levels of both trees at most.
        """
        super().__init__(draft, feed, prefill, num_speculative_tokens, max_depth)
        check_counts(retrieved_tokens=retrieved_tokens)
        self.retrieval = Retrieval(corpus, vocab_size, max_matching_ngram_size, max_depth)
        self.retrieved = retrieved_tokens

    def open(self, seq: Sequence) -> RetrievalEagleDrafting:
        return RetrievalEagleDrafting(self, seq)


class RetrievalEagleDrafting(EagleTreeDrafting[RetrievalEagle]):
    """The trees of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq, nodes = self.drafter, self.seq, self.drafter.budget.nodes
        paths = drafter.retrieval.paths(seq.tokens, room)
        drafted = yield from self.grow(room)
        if drafted is None:
            return merged(seq.pending, paths, nodes)
        return fused(paths, drafted.tokens, drafted.parents, drafted.values, drafter.retrieved, nodes)
