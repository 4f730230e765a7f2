"""RSD-S: a tree by stochastic beam search (Jeon et al. 2024, arXiv:2402.14160; Kool et al. 2019, arXiv:1903.06059)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from collections.abc import Sequence as Items
from math import inf
from typing import NamedTuple

from ..draft import Draft, Outputs
from ..draft_tree import running_root
from ..draws import DrawnProbs, Draws
from ..engine import Engine
from ..rng import Use
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal, check_counts


class StochasticBeam(Drafter):
    """A drafter of trees with the same number of nodes in each level: a beam of texts drawn without replacement.

    The paper perturbs the log-probability of each text by Gumbel noise, and keeps the largest. For a text with the
    perturbed value g, exp(-g) is the time at which it arrives, if each text arrives at a rate that is its probability.
    So the earliest arrivals are kept. The first child of a node arrives with the node, and each further one later by an
    exponential time at the rate of the children that are left. It needs one number for each kept node, and not one for
    each token of the vocabulary, and the distribution is the paper's.

    A greedy request has the likeliest texts: a beam search.
    """

    def __init__(
        self,
        draft: Engine,
        prefill: Engine | None = None,
        sample: bool = False,
        beams: int = 3,
        max_depth: int = 4,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: a Frontier engine of `beams` slots. Without `prefill` it runs over the target's cache.
            prefill: an engine that fills the draft's own cache with the prompt.
            sample: draw the texts if the request samples.
            beams: nodes of a level, W.
            max_depth: levels below the pending token, L.
        """
        check_counts(beams=beams, max_depth=max_depth)
        self.engine, self.prefill, self.sample = draft, prefill, sample
        self.beams, self.depth = beams, max_depth

    def open(self, seq: Sequence) -> StochasticBeamDrafting:
        return StochasticBeamDrafting(self, seq)


class Node(NamedTuple):
    """A node of the beam.

    Attributes:
        slot: its slot in the tree.
        reach: the draft's probability of its text.
        time: when it arrives.
    """

    slot: int
    reach: float
    time: float


class StochasticBeamDrafting(Drafting[StochasticBeam]):
    """The trees of one request, and the draft's rows of its text."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        engine, cache = drafter.engine, seq.caches[drafter.engine.block.cache]
        sampling, sample = seq.sampling, drafter.sample and not seq.sampling.greedy
        grower, tokens, parents = TreeGrower(), [seq.pending], [-1]
        draws: dict[int, Draws] = {}
        level = [Node(0, 1.0, 0.0)]
        root = grower.grow([0], parents)
        committed, outputs, row = yield from running_root(engine, drafter.prefill, seq, cache, root)
        for depth in range(min(drafter.depth, room)):
            if depth:
                growth, row = grower.grow([node.slot for node in level], parents), 0
                outputs = yield growth.call(engine, cache, tokens, committed)
            families: list[Family] = []
            for i, node in enumerate(level, row):
                if sample:
                    assert outputs.logits_NV is not None
                    rng = sampling.rng.at(len(seq.tokens) + depth, Use.DRAFT, node.slot)
                    draws[node.slot] = sampling.draws(outputs.logits_NV[i], rng)
                    families.append(SampledFamily(node, draws[node.slot]))
                else:
                    families.append(LikeliestFamily(node, outputs, i))
            level = []
            for child in first(families, drafter.beams):
                level.append(Node(len(tokens), child.reach, child.time))
                tokens.append(child.token)
                parents.append(child.parent)
            if not level:
                break
        return Draft(tuple(tokens), Tree(tuple(parents)), DrawnProbs(draws))


class Child(NamedTuple):
    """A text of the beam: its parent's slot, its last token, its probability, and when it arrives."""

    parent: int
    token: int
    reach: float
    time: float


class Family(ABC):
    """The children of one node, in the order in which they arrive.

    Attributes:
        node: the node.
        time: when the next child arrives; infinity if there is none.
    """

    def __init__(self, node: Node, time: float) -> None:
        self.node, self.time = node, time

    @abstractmethod
    def take(self) -> Child:
        """Return the next child, and set the time of the one after it."""


class SampledFamily(Family):
    """Children drawn without replacement.

    A token is drawn when the child is taken. Its time is known before that, and does not depend on the token. So the
    rule `recursive` is exact whichever times are kept.
    """

    def __init__(self, node: Node, draws: Draws) -> None:
        super().__init__(node, node.time)
        self.draws = draws

    def take(self) -> Child:
        (token, _), time = self.draws.take(), self.time
        rate = self.node.reach * self.draws.left
        self.time = time + self.draws.rng.exponential() / rate if rate > 0 else inf
        return Child(self.node.slot, token, self.node.reach * self.draws.probability(token), time)


class LikeliestFamily(Family):
    """The likeliest children. A child's time is minus its probability, so that the likeliest texts come first."""

    def __init__(self, node: Node, outputs: Outputs, row: int) -> None:
        ids, probs = outputs.top(row)
        reaches = node.reach * probs
        self.children = iter([Child(node.slot, int(i), float(r), -float(r)) for i, r in zip(ids, reaches, strict=True)])
        self.next = next(self.children)
        super().__init__(node, self.next.time)

    def take(self) -> Child:
        child = self.next
        self.next = next(self.children, child._replace(time=inf))
        self.time = self.next.time
        return child


def first(families: Items[Family], count: int) -> Iterator[Child]:
    """Yield the first `count` children of all families, or all of them, in the order in which they arrive."""
    for _ in range(count):
        family = min(families, key=lambda family: family.time)
        if family.time == inf:
            return
        yield family.take()
