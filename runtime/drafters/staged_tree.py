"""A draft model's tree whose growth is itself speculated (Spector & Re 2023, arXiv:2308.04623)."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import NamedTuple

from ..draft import Draft
from ..draft_tree import running_root
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal, check_counts
from .dynamic_tree import likeliest
from .prompt_lookup import NgramIndex

Children = list[tuple[int, float]]  # tokens, each with its share of the probability that was left before it


class StagedTree(Drafter):
    """A drafter of trees by a draft model, whose calls also run what prompt lookup guesses.

    A node gets children while they are likely enough to be reached. A call runs the likeliest nodes that have not run.
    Its other slots run a chain that is copied from the text, below the likeliest of them. Where the draft model agrees
    with the copy, the nodes of the next levels have run already, and need no call of their own.
    """

    def __init__(
        self,
        draft: Engine,
        prefill: Engine,
        num_speculative_tokens: int = 15,
        max_depth: int = 6,
        max_matching_ngram_size: int = 3,
        min_matching_ngram_size: int = 2,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: the draft model as a Frontier engine. A call runs nodes in half of its slots, and
                guesses in the others.
            prefill: the draft model on many slots, which fills its cache with the prompt.
            num_speculative_tokens: nodes below the pending token at most.
            max_depth: levels below the pending token at most, and calls after the first one.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
            min_matching_ngram_size: tokens that must match before a chain is copied.
        """
        check_counts(
            num_speculative_tokens=num_speculative_tokens,
            max_depth=max_depth,
            max_matching_ngram_size=max_matching_ngram_size,
            min_matching_ngram_size=min_matching_ngram_size,
        )
        self.engine, self.prefill, self.slots, self.depth = draft, prefill, 1 + num_speculative_tokens, max_depth
        self.longest, self.shortest = max_matching_ngram_size, min_matching_ngram_size

    def open(self, seq: Sequence) -> StagedTreeDrafting:
        return StagedTreeDrafting(self, seq)


class StagedTreeDrafting(Drafting[StagedTree]):
    """The trees of one request, the index of its text, and the draft's rows of it."""

    def __init__(self, drafter: StagedTree, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.index = NgramIndex(seq.tokens, drafter.longest)

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        engine, cache = drafter.engine, seq.caches[drafter.engine.block.cache]
        grower, nodes = TreeGrower(), Nodes(seq.pending)
        first = grower.grow([0], nodes.parents)
        committed, outputs, row = yield from running_root(engine, drafter.prefill, seq, cache, first)
        nodes.children[0] = list(likeliest(outputs, row))
        frontier = [Place(1.0, 0, 0)]
        calls = 0
        while frontier and len(nodes.drafted) < drafter.slots:
            frontier.sort(reverse=True)
            ready = [place for place in frontier if place.slot in nodes.children]
            if ready:
                frontier.remove(ready[0])
                below = nodes.grow(ready[0], drafter.slots)
                frontier += [place for place in below if place.depth < min(drafter.depth, room)]
            elif calls == drafter.depth:
                break
            else:
                calls += 1
                missing = [place.slot for place in frontier[: engine.slots // 2]]
                left, path = engine.slots - len(missing), nodes.path(missing[0])
                run = [*missing, *nodes.hang(missing[0], self.index.after(left, path, drafter.shortest, whole=True))]
                outputs = yield grower.grow(run, nodes.parents).call(engine, cache, nodes.tokens, committed)
                for row, slot in enumerate(run):
                    nodes.children[slot] = list(likeliest(outputs, row))
        return nodes.draft()


class Place(NamedTuple):
    """A node that may get children.

    Attributes:
        value: the probability to reach it.
        slot: its slot.
        depth: its depth.
    """

    value: float
    slot: int
    depth: int


class Nodes:
    """The nodes of a draft, and those that were guessed and may become some.

    Attributes:
        tokens: the token of each node, by slot.
        parents: its parent's slot.
        children: for nodes that have run, the likeliest children by the draft.
        drafted: the slots of the nodes that are in the draft.
    """

    def __init__(self, pending: int) -> None:
        self.tokens, self.parents = [pending], [-1]
        self.children: dict[int, Children] = {}
        self.drafted = {0}
        self._slots: dict[tuple[int, int], int] = {}  # By the parent's slot and the token.

    def path(self, slot: int) -> list[int]:
        """Return the tokens from below the pending one to a slot."""
        tokens: list[int] = []
        while slot:
            tokens.insert(0, self.tokens[slot])
            slot = self.parents[slot]
        return tokens

    def hang(self, slot: int, tokens: Items[int]) -> list[int]:
        """Hang a chain below a slot, and return its slots."""
        chain: list[int] = []
        for token in tokens:
            slot = self._slot(slot, token)
            chain.append(slot)
        return chain

    def grow(self, place: Place, most: int) -> list[Place]:
        """Add the likely children of a node that has run to the draft, and return them.

        Args:
            place: the node.
            most: how many slots the draft may have. A child needs a larger value than its inverse.
        """
        below: list[Place] = []
        value = place.value  # The part of the probability that further children can have.
        for token, share in self.children[place.slot]:
            if value <= 1 / most or len(self.drafted) == most:
                break
            child = self._slot(place.slot, token)
            self.drafted.add(child)
            if value * share > 1 / most:
                below.append(Place(value * share, child, place.depth + 1))
            value *= 1 - share
        return below

    def draft(self) -> Draft:
        """Return the draft."""
        slots = sorted(self.drafted)
        place = {slot: i for i, slot in enumerate(slots)}
        tree = Tree(tuple(place.get(self.parents[slot], -1) for slot in slots))
        return Draft(tuple(self.tokens[slot] for slot in slots), tree)

    def _slot(self, parent: int, token: int) -> int:
        """Return the slot of a token below a slot. A new one is made if there is none."""
        slot = self._slots.setdefault((parent, token), len(self.tokens))
        if slot == len(self.tokens):
            self.tokens.append(token)
            self.parents.append(parent)
        return slot
