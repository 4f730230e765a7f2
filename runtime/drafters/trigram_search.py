"""A tree search over trigrams: ADED, also called Adaptix (Liu et al. 2024, arXiv:2407.12021)."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import log, sqrt
from operator import itemgetter
from pathlib import Path
from random import Random

from ..corpus_index import CorpusIndex
from ..draft import Draft
from ..sequence import Sequence
from ..tree import Tree
from . import MOST_VOCABULARY, Drafter, Drafting, check_counts

# The constants of the paper's code.
SUCCESSORS = 12  # tokens that may follow two others, likeliest first
RECENT, GAIN, CAP = 16, 0.04, 3.0  # each step adds GAIN to the trigrams of the last RECENT tokens, up to CAP
PATHS = 24  # paths of the search that become a tree
MOST_ITERATIONS = 4096
Successors = list[tuple[int, float]]  # tokens and their probabilities, likeliest first
BY_WEIGHT = itemgetter(1)


class TrigramSearch(Drafter):
    """A drafter that searches the continuations of the text, as trigrams give them, and drafts the best ones.

    The paper's search is a Monte Carlo tree search by the rule of PUCT, whose most visited paths become a tree. By
    default the nodes of the most probable texts become the tree instead. If the trigrams are right, of no other tree
    with so many nodes more tokens are accepted. A best-first search finds them, and tries no path twice.

    The table begins with the trigrams of a corpus, if the bundle has one: each with its share of all tokens that follow
    the two others. Each occurrence in the request's own text counts one, besides the paper's small weights for recent
    tokens. So the search also works without a corpus.
    """

    files = ("corpus",)

    def __init__(
        self,
        num_speculative_tokens: int = 23,
        max_depth: int = 4,
        search_iterations: int = 0,
        corpus: Path | None = None,
        vocab_size: int = 1,
    ) -> None:
        """Keep the parameters, and open the corpus if there is one.

        Args:
            corpus: the index of a corpus; None has none.
            vocab_size: the token ids of the corpus are below it.
            num_speculative_tokens: nodes of a tree at most, below the pending token.
            max_depth: levels of the search. A path of the tree is one token longer at most.
            search_iterations: paths that the paper's search tries; with 0 the search is best-first.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens, max_depth=max_depth)
        check_counts(0, MOST_ITERATIONS, search_iterations=search_iterations)
        check_counts(most=MOST_VOCABULARY, vocab_size=vocab_size)
        self.nodes, self.depth, self.iterations = num_speculative_tokens, max_depth, search_iterations
        self.corpus = None if corpus is None else CorpusIndex(corpus, vocab_size)

    def open(self, seq: Sequence) -> TrigramSearchDrafting:
        return TrigramSearchDrafting(self, seq)


class TrigramSearchDrafting(Drafting[TrigramSearch]):
    """The trigrams of one request's text."""

    def __init__(self, drafter: TrigramSearch, seq: Sequence) -> None:
        """Make an empty table. A fixed seed makes the searches repeatable."""
        super().__init__(drafter, seq)
        self.table, self.rng = Trigrams(seq.tokens, drafter.corpus), Random(0)

    def draft(self, room: int) -> Draft:
        drafter, tokens = self.drafter, self.seq.tokens
        self.table.update()
        if len(tokens) < 2 or not self.table.after(*tokens[-2:]):
            return Draft.chain(tokens[-1:])
        if not drafter.iterations:
            return likeliest(self.table, tokens, drafter.depth, room, drafter.nodes)
        root = Node(tokens[-1], 1.0)
        search = Search(self.table, self.rng)
        for _ in range(drafter.iterations):
            search.descend(root, tokens[-2], min(drafter.depth, room))
        paths = sorted(root.paths(), key=lambda path: -path[-1].visits)[:PATHS]
        return merged(tokens[-1], [self._extended(path)[:room] for path in paths], drafter.nodes)

    def _extended(self, path: tuple[Node, ...]) -> list[int]:
        """Return the tokens of a path, and the likeliest token after it."""
        tokens = [node.token for node in path]
        after = self.table.after(*[self.seq.pending, *tokens][-2:])
        return tokens + [token for token, _ in after[:1]]


class Trigrams:
    """The weights of the trigrams of a text that grows."""

    def __init__(self, tokens: list[int], corpus: CorpusIndex | None = None) -> None:
        """Make an empty table.

        Args:
            tokens: the text. Tokens that are appended later are counted too.
            corpus: says what a row begins with; None begins with nothing.
        """
        self.tokens, self.corpus = tokens, corpus
        self.weights: dict[tuple[int, int], dict[int, float]] = {}
        self._after: dict[tuple[int, int], Successors] = {}  # Those of rows that did not change since.
        self.counted = 2  # The trigrams that end up to here are in the table.

    def update(self) -> None:
        """Count the trigrams that are new, and add to the weights of the recent ones. A step calls it once."""
        for end in range(self.counted + 1, len(self.tokens) + 1):
            self._add(end, 1.0)
        self.counted = max(self.counted, len(self.tokens))
        for end in range(max(3, len(self.tokens) - RECENT + 3), len(self.tokens) + 1):
            self._add(end, GAIN)

    def _add(self, end: int, weight: float) -> None:
        """Add to the weight of the trigram that ends at `end`."""
        a, b, c = self.tokens[end - 3 : end]
        row = self._row(a, b)
        before = row.get(c, 0.0)
        if before < CAP:
            row[c] = min(CAP, before + weight)
            self._after.pop((a, b), None)

    def _row(self, a: int, b: int) -> dict[int, float]:
        """Return the weights of the tokens after two others. A new row begins with those of the corpus."""
        row = self.weights.get((a, b))
        if row is None:
            row = self.weights[a, b] = self.corpus.shares((a, b), SUCCESSORS) if self.corpus else {}
        return row

    def after(self, a: int, b: int) -> Successors:
        """Return the tokens that follow two others, with their probabilities."""
        after = self._after.get((a, b))
        if after is None:
            row = self._row(a, b) if self.corpus else self.weights.get((a, b))
            if not row:
                return []
            best = sorted(row.items(), key=BY_WEIGHT, reverse=True)[:SUCCESSORS]
            total = sum([weight for _, weight in best])
            after = self._after[a, b] = [(token, weight / total) for token, weight in best]
        return after


def likeliest(table: Trigrams, tokens: Tokens[int], levels: int, room: int, nodes: int) -> Draft:
    """Return the tree of the nodes whose texts are most probable.

    Args:
        table: says which tokens follow two others.
        tokens: the text, two tokens at least. The last one is pending.
        levels: levels of the search. Below the last one stands one more, with the likeliest token of each text alone.
        room: levels of the tree at most.
        nodes: nodes below the pending token at most.
    """
    drafted, parents, depth = [tokens[-1]], [-1], [0]
    after = [table.after(tokens[-2], tokens[-1])]  # By slot, what may follow.
    # Nodes that could be next: the probability of their text, negative for heapq, their parent's slot and their rank.
    heap = [(-after[0][0][1], 0, 0)] if room > 0 else []
    while heap and len(drafted) <= nodes:
        negative, parent, rank = heappop(heap)
        siblings, slot, level = after[parent], len(drafted), depth[parent] + 1
        token, probability = siblings[rank]
        drafted.append(token)
        parents.append(parent)
        depth.append(level)
        after.append(table.after(drafted[parent], token) if level < min(levels + 1, room) else [])
        if after[slot]:
            heappush(heap, (negative * after[slot][0][1], slot, 0))
        if rank + 1 < len(siblings) and level <= levels:
            heappush(heap, (negative / probability * siblings[rank + 1][1], parent, rank + 1))
    return Draft(tuple(drafted), Tree(tuple(parents)))


@dataclass(slots=True)
class Node:
    """A token that the search considers.

    Attributes:
        token: the token.
        probability: that of the token after the two tokens before it.
        visits: how many paths went through it.
        value: the sum of their values. The value of a path is the sum of the probabilities from this token on.
        children: the tokens that may follow; None before the first visit.
    """

    token: int
    probability: float
    visits: int = 0
    value: float = 0.0
    children: list[Node] | None = field(default=None)

    def paths(self, above: tuple[Node, ...] = ()) -> Iterator[tuple[Node, ...]]:
        """Yield the paths of visited nodes from below this node to the last visited one."""
        children = [child for child in self.children or () if child.visits]
        for child in children:
            yield from child.paths((*above, child))
        if above and not children:
            yield above


class Search:
    """A Monte Carlo tree search over continuations."""

    def __init__(self, table: Trigrams, rng: Random) -> None:
        self.table, self.rng = table, rng

    def descend(self, node: Node, before: int, levels: int) -> float:
        """Try one path from a node on.

        Args:
            node: the node.
            before: the token before it.
            levels: levels below the node at most.

        Returns:
            The value of the path.
        """
        value = node.probability
        if levels and node.children is None:
            node.children = [Node(token, probability) for token, probability in self.table.after(before, node.token)]
            value += self._roll_out(before, node.token, levels)
        elif levels and node.children:
            value += self.descend(_best_child(node), node.token, levels - 1)
        node.visits += 1
        node.value += value
        return value

    def _roll_out(self, a: int, b: int, levels: int) -> float:
        """Return the sum of the probabilities of tokens that are drawn one after another."""
        value = 0.0
        for _ in range(levels):
            after = self.table.after(a, b)
            if not after:
                break
            ((token, probability),) = self.rng.choices(after, [share for _, share in after])
            value += probability
            a, b = b, token
        return value


def _best_child(node: Node) -> Node:
    """Return the child with the largest score of PUCT. The node must have children."""
    assert node.children is not None
    explore = (32 + log((node.visits + 9) / 8)) * sqrt(node.visits)
    best, most = node.children[0], -1.0
    for child in node.children:
        score = explore * child.probability / (1 + child.visits)
        if child.visits:
            score += child.value / child.visits
        if score > most:
            best, most = child, score
    return best


def merged(pending: int, paths: list[list[int]], nodes: int) -> Draft:
    """Return the tree of paths that share their beginnings.

    Args:
        pending: the token of slot 0.
        paths: the tokens of each path, best path first.
        nodes: nodes below slot 0 at most. Later paths are left out.
    """
    tokens, parents = [pending], [-1]
    slot_of: dict[tuple[int, int], int] = {}  # By the parent's slot and the token: the slot of the child.
    for path in paths:
        slot = 0
        for token in path:
            if (slot, token) not in slot_of:
                if len(tokens) > nodes:
                    break
                slot_of[slot, token] = len(tokens)
                parents.append(slot)
                tokens.append(token)
            slot = slot_of[slot, token]
    return Draft(tuple(tokens), Tree(tuple(parents)))
