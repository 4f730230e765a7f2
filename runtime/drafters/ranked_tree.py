"""A beam whose nodes are ranked once more in the end: EAGLE-2's tree, with the stop of Dynamic Depth Decoding.

Li et al. 2024, arXiv:2406.16858; Brown et al. 2024, arXiv:2409.00142.
"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Sequence as Items

from ..call import Call
from ..draft import Draft, Outputs
from ..draft_tree import running_root
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal, check_counts, check_probability


class RankedTree(Drafter):
    """A drafter that runs a beam of likely texts, and drafts the likeliest nodes of all that it met.

    A level runs the nodes that are likeliest to be reached, as many as the beam is wide. At some depths it asks how
    likely it is that the text is in the beam at all. Dynamic Depth Decoding calls the logarithm of that the mass of the
    beam, and stops if it is small. So sure places have deep trees.
    """

    def __init__(
        self,
        draft: Engine,
        prefill: Engine | None = None,
        num_speculative_tokens: int = 15,
        beams: int = 4,
        max_depth: int = 7,
        mass_threshold: float = 0.0,
        mass_depths: Items[int] = (),
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: a Frontier engine of `beams` slots. Without `prefill` it runs over the target's cache.
            prefill: an engine that fills the draft's own cache with the prompt.
            num_speculative_tokens: nodes of the draft at most.
            beams: nodes that a level runs.
            max_depth: levels at most.
            mass_threshold: the tree ends if the beam has a smaller probability. 0 never ends it.
            mass_depths: the depths at which that is asked.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens, beams=beams, max_depth=max_depth)
        check_probability(mass_threshold=mass_threshold)
        for depth in mass_depths:
            check_counts(mass_depths=depth)
        self.engine, self.prefill, self.nodes = draft, prefill, num_speculative_tokens
        self.beams, self.depth, self.mass, self.mass_depths = beams, max_depth, mass_threshold, frozenset(mass_depths)

    def open(self, seq: Sequence) -> RankedTreeDrafting:
        return RankedTreeDrafting(self, seq)


class RankedTreeDrafting(Drafting[RankedTree]):
    """The trees of one request, and the draft's rows of its text."""

    def propose(self, room: int) -> Proposal:
        candidates = yield from self.grow(room)
        return candidates.draft(self.drafter.nodes)

    def grow(self, room: int) -> Generator[Call, Outputs, Candidates]:
        """Yield the calls that run the beam, and return the nodes that it met.

        Args:
            room: how many levels are worth drafting.
        """
        drafter, seq = self.drafter, self.seq
        cache = seq.caches[drafter.engine.block.cache]
        grower, candidates = TreeGrower(), Candidates(seq.pending)
        first = grower.grow([0], candidates.parents)
        committed, outputs, row = yield from running_root(drafter.engine, drafter.prefill, seq, cache, first)
        beam = [0]
        for depth in range(min(drafter.depth, room)):
            if depth:
                growth, row = grower.grow(beam, candidates.parents), 0
                outputs = yield growth.call(drafter.engine, cache, candidates.tokens, committed)
            start = len(candidates.tokens)
            for i, slot in enumerate(beam, row):
                candidates.add(slot, outputs, i)
            beam = candidates.best(range(start, len(candidates.tokens)), drafter.beams)
            mass = sum(candidates.reach[slot] for slot in beam)
            if depth + 1 in drafter.mass_depths and mass < drafter.mass:
                break
        return candidates


class Candidates:
    """The nodes that a beam met. A node is known by its slot, which is larger than its parent's.

    Attributes:
        tokens: their tokens.
        parents: their parents' slots.
        reach: the draft's probability of the text up to each.
    """

    def __init__(self, pending: int) -> None:
        self.tokens, self.parents, self.reach = [pending], [-1], [1.0]

    def add(self, slot: int, outputs: Outputs, row: int) -> None:
        """Add the likeliest children of a slot, from a row of the draft's outputs."""
        ids, probs = outputs.top(row)
        for token, probability in zip(ids.tolist(), probs.tolist(), strict=True):
            self.tokens.append(token)
            self.parents.append(slot)
            self.reach.append(self.reach[slot] * min(1.0, probability))

    def best(self, slots: Items[int], count: int) -> list[int]:
        """Return the likeliest of some slots, in order of slot. A child is never chosen before its parent."""
        return sorted(sorted(slots, key=lambda slot: (-self.reach[slot], slot))[:count])

    def path(self, slot: int) -> list[int]:
        """Return the tokens from below the pending one to a slot."""
        tokens: list[int] = []
        while slot:
            tokens.append(self.tokens[slot])
            slot = self.parents[slot]
        return tokens[::-1]

    def draft(self, nodes: int) -> Draft:
        """Return the draft of the likeliest nodes."""
        slots = [0, *self.best(range(1, len(self.tokens)), nodes)]
        place = {slot: i for i, slot in enumerate(slots)}
        tree = Tree(tuple(place.get(self.parents[slot], -1) for slot in slots))
        return Draft(tuple(self.tokens[slot] for slot in slots), tree)
