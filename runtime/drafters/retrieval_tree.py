"""RASD: a tree retrieved from a corpus, fused with that of a draft model (Quan et al. 2025, arXiv:2503.03434)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Sequence as Items
from pathlib import Path

from ..corpus_index import CorpusIndex
from ..draft import Draft
from ..engine import Engine
from ..sequence import Sequence
from . import MOST_VOCABULARY, Drafter, Drafting, Proposal, check_counts
from .ranked_tree import RankedTree, RankedTreeDrafting
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
        check_counts(num_speculative_tokens=num_speculative_tokens, retrieved_tokens=retrieved_tokens)
        self.retrieval = Retrieval(corpus, vocab_size, max_matching_ngram_size, max_depth)
        self.nodes, self.retrieved, self.engine = num_speculative_tokens, retrieved_tokens, draft
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
        drafter, seq = self.drafter, self.seq
        paths = drafter.retrieval.paths(seq.tokens, room)
        if self.beam is None:
            return merged(seq.pending, paths, drafter.nodes)
        drafted = yield from self.beam.grow(room)
        return fused(paths, drafted.tokens, drafted.parents, drafted.reach, drafter.retrieved, drafter.nodes)


class Retrieval:
    """A look-up of what followed the last tokens of a text in a corpus."""

    def __init__(self, corpus: Path, vocab_size: int, longest: int, depth: int) -> None:
        """Open the index.

        Args:
            corpus: the index.
            vocab_size: token ids are below it.
            longest: tokens of the longest end of the text that is looked up.
            depth: levels of the tree at most.
        """
        check_counts(most=MOST_VOCABULARY, vocab_size=vocab_size)
        check_counts(max_matching_ngram_size=longest, max_depth=depth)
        self.index, self.longest, self.depth = CorpusIndex(corpus, vocab_size), longest, depth

    def paths(self, tokens: Items[int], room: int) -> list[list[int]]:
        """Return the paths to the nodes of the retrieved tree, the most frequent first.

        Args:
            tokens: the text.
            room: how many levels are worth drafting.
        """
        depth = min(self.depth, room)
        for size in range(min(self.longest, len(tokens)), 0, -1):
            texts = self.index.following(tokens[-size:], depth, OCCURRENCES) if depth else []
            if texts:
                return frequent(texts)
        return []


def frequent(texts: Iterable[tuple[int, ...]]) -> list[list[int]]:
    """Return the beginnings of some texts, the most frequent first. A beginning comes before what is longer."""
    counts = Counter(text[:size] for text in texts for size in range(1, 1 + len(text)))
    return [list(path) for path in sorted(counts, key=lambda path: (-counts[path], len(path), path))]


def fused(
    paths: Items[list[int]],
    tokens: Items[int],
    parents: Items[int],
    chances: Items[float],
    retrieved: int,
    nodes: int,
) -> Draft:
    """Return the tree of retrieved paths and of the likeliest drafted nodes.

    Args:
        paths: the paths to retrieved nodes, the best first.
        tokens: the token of each drafted node; that of node 0 is pending.
        parents: the parent of each drafted node, which comes before it.
        chances: how likely each drafted node is.
        retrieved: how many retrieved nodes are taken at most.
        nodes: nodes of the tree at most.
    """
    likely = {tokens[node] for node, parent in enumerate(parents) if parent == 0}
    retrieval = [path for path in paths if path[0] in likely][:retrieved]
    drafted_paths: list[list[int]] = [[]]
    for node in range(1, len(tokens)):
        drafted_paths.append([*drafted_paths[parents[node]], tokens[node]])
    best = sorted(range(1, len(tokens)), key=lambda node: (-chances[node], node))[:nodes]
    return merged(tokens[0], retrieval + [drafted_paths[node] for node in best], nodes)
