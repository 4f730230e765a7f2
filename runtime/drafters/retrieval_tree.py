"""RASD: a tree retrieved from a corpus, fused with that of a draft model (Quan et al. 2025, arXiv:2503.03434)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..corpus_index import CorpusIndex
from ..draft import Draft
from ..engine import Engine
from ..sequence import Sequence
from . import MOST_VOCABULARY, Drafter, Drafting, Proposal, check_counts
from .ranked_tree import Candidates, RankedTree, RankedTreeDrafting
from .trigram_search import merged

OCCURRENCES = 64  # places of the corpus whose continuations become a tree


class RetrievalTree(Drafter):
    """A drafter that looks up in a corpus what followed the last tokens of the text, and drafts it as a tree.

    The longest end of the text that occurs in the corpus decides. Its continuations become a tree, of which the most
    frequent nodes are kept. With a draft model, branches are dropped whose first token that model finds unlikely, and
    the rest is fused with the draft model's own tree: nodes with one path are one node.
    """

    files = ("corpus",)

    def __init__(
        self,
        corpus: Path,
        vocab_size: int,
        draft: Engine | None = None,
        prefill: Engine | None = None,
        num_speculative_tokens: int = 15,
        retrieved_tokens: int = 8,
        max_matching_ngram_size: int = 8,
        max_depth: int = 5,
        beams: int = 4,
    ) -> None:
        """Open the index, and keep the engines and the parameters.

        Args:
            corpus: the index.
            vocab_size: token ids are below it.
            draft: a draft model as a Frontier engine of `beams` slots; None drafts by retrieval alone.
            prefill: the draft model on many slots, which fills its cache with the prompt.
            num_speculative_tokens: nodes of the draft at most.
            retrieved_tokens: those of them that come from the corpus at most, if there is a draft model.
            max_matching_ngram_size: tokens of the longest end of the text that is looked up.
            max_depth: levels of both trees at most.
            beams: nodes that the draft model runs in a call.
        """
        check_counts(most=MOST_VOCABULARY, vocab_size=vocab_size)
        check_counts(
            num_speculative_tokens=num_speculative_tokens,
            retrieved_tokens=retrieved_tokens,
            max_matching_ngram_size=max_matching_ngram_size,
            max_depth=max_depth,
        )
        self.index = CorpusIndex(corpus, vocab_size)
        self.nodes, self.retrieved = num_speculative_tokens, retrieved_tokens
        self.longest, self.depth, self.engine = max_matching_ngram_size, max_depth, draft
        self.beam = None
        if draft is not None:
            self.beam = RankedTree(draft, prefill, num_speculative_tokens, beams, max_depth)

    def open(self, seq: Sequence) -> RetrievalTreeDrafting:
        return RetrievalTreeDrafting(self, seq)


class RetrievalTreeDrafting(Drafting[RetrievalTree]):
    """The look-ups of one request, and the draft model's rows of its text if there is one."""

    def __init__(self, drafter: RetrievalTree, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.beam = RankedTreeDrafting(drafter.beam, seq) if drafter.beam else None

    def propose(self, room: int) -> Proposal:
        drafter, pending = self.drafter, self.seq.pending
        paths = self.retrieve(min(drafter.depth, room))
        if self.beam is None:
            return merged(pending, paths, drafter.nodes)
        candidates = yield from self.beam.grow(room)
        return fused(pending, paths, candidates, drafter.retrieved, drafter.nodes)

    def retrieve(self, depth: int) -> list[list[int]]:
        """Return the paths to the nodes of the retrieved tree, the most frequent first."""
        drafter, tokens = self.drafter, self.seq.tokens
        for size in range(min(drafter.longest, len(tokens)), 0, -1):
            texts = drafter.index.following(tokens[-size:], depth, OCCURRENCES) if depth else []
            if texts:
                return frequent(texts)
        return []


def frequent(texts: Iterable[tuple[int, ...]]) -> list[list[int]]:
    """Return the beginnings of some texts, the most frequent first. A beginning comes before what is longer."""
    counts = Counter(text[:size] for text in texts for size in range(1, 1 + len(text)))
    return [list(path) for path in sorted(counts, key=lambda path: (-counts[path], len(path), path))]


def fused(pending: int, paths: list[list[int]], candidates: Candidates, retrieved: int, nodes: int) -> Draft:
    """Return the tree of retrieved paths and of the draft model's likeliest nodes.

    Args:
        pending: the token of slot 0.
        paths: the paths to retrieved nodes, the best first.
        candidates: the nodes that the draft model met.
        retrieved: how many retrieved nodes are taken at most.
        nodes: nodes of the tree at most.
    """
    likely = {candidates.tokens[slot] for slot, parent in enumerate(candidates.parents) if parent == 0}
    retrieval = [path for path in paths if path[0] in likely][:retrieved]
    drafted = sorted(range(1, len(candidates.tokens)), key=lambda slot: (-candidates.reach[slot], slot))[:nodes]
    return merged(pending, retrieval + [candidates.path(slot) for slot in drafted], nodes)
