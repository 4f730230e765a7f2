"""A tree that changes at each step: DySpec (Xiong et al. 2024, arXiv:2410.11744)."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp

from ..draft import Draft, Outputs
from ..draft_tree import running_root
from ..draws import DrawnProbs, Draws
from ..engine import Engine
from ..rng import Use
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal, check_counts


class DynamicTree(Drafter):
    """A drafter that grows a tree level by level, best first by the draft's own probabilities.

    It follows DySpec's threshold construction. The value of a node is the probability to reach and accept it. A node
    gets one more child while the value that is left for its children exceeds 1 / slots. A level costs one draft call.
    """

    def __init__(
        self,
        draft: Engine,
        prefill: Engine | None = None,
        sample: bool = False,
        num_speculative_tokens: int = 15,
        max_depth: int = 6,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: a Frontier engine. Without `prefill` it runs over the target's cache.
            prefill: an engine that fills the draft's own cache with the prompt.
            sample: draw the siblings without replacement if the request samples.
            num_speculative_tokens: nodes below the pending token at most.
            max_depth: levels below the pending token at most.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens, max_depth=max_depth)
        self.engine, self.prefill, self.sample = draft, prefill, sample
        self.slots, self.depth = 1 + num_speculative_tokens, max_depth

    def open(self, seq: Sequence) -> DynamicTreeDrafting:
        return DynamicTreeDrafting(self, seq)


class DynamicTreeDrafting(Drafting[DynamicTree]):
    """The trees of one request, and the draft's rows of its text."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        cache = seq.caches[drafter.engine.block.cache]
        engine, most, sample = drafter.engine, drafter.slots, drafter.sample and not seq.sampling.greedy
        grower, tokens, parents = TreeGrower(), [seq.pending], [-1]
        draws: dict[int, Draws] = {}
        root = grower.grow([0], parents)
        committed, outputs, first_row = yield from running_root(engine, drafter.prefill, seq, cache, root)
        level: list[tuple[float, int]] = [(1.0, 0)]  # Nodes to grow: the value left for children, and the slot.
        for depth in range(min(drafter.depth, room)):
            if depth:
                growth, first_row = grower.grow([slot for _, slot in level], parents), 0
                outputs = yield growth.call(engine, cache, tokens, committed)
            below: list[tuple[float, int]] = []
            for row, (parent_value, slot) in enumerate(level, first_row):
                value = parent_value  # The part of the parent's probability that its further children can have.
                if sample:
                    assert outputs.logits_NV is not None
                    rng = seq.sampling.rng.at(len(seq.tokens) + depth, Use.DRAFT, slot)
                    draws[slot] = seq.sampling.draws(outputs.logits_NV[row], rng)
                    children = sampled(draws[slot])
                else:
                    children = likeliest(outputs, row)
                for token, share in children:
                    if value <= 1 / most or len(tokens) == most:
                        break
                    below.append((value * share, len(tokens)))
                    tokens.append(token)
                    parents.append(slot)
                    value *= 1 - share
            level = sorted((node for node in below if node[0] > 1 / most), reverse=True)[: engine.slots]
            if not level or len(tokens) == most:
                break
        return Draft(tuple(tokens), Tree(tuple(parents)), DrawnProbs(draws))


def likeliest(outputs: Outputs, row: int) -> Iterator[tuple[int, float]]:
    """Yield the tokens of a top-k, likeliest first, each with its share of the probability that was left before it."""
    ranks, ids, logprobs = outputs.ranked()
    rest = 1.0
    for rank in range(ranks):
        probability = exp(logprobs[row, rank])
        yield ids[row, rank], probability / max(rest, 1e-9)
        rest -= probability


def sampled(draws: Draws) -> Iterator[tuple[int, float]]:
    """Yield tokens drawn without replacement, each with its share of the probability that was left before it.

    A token is drawn only when the caller asks for it. The rule that accepts it is exact only if that decision does not
    depend on which token comes next.
    """
    while not draws.is_empty:
        yield draws.take()
