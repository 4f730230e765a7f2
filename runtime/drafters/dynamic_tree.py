"""A tree that changes at each step: DySpec (Xiong et al. 2024, arXiv:2410.11744).

V  vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp

import numpy as np

from ..call import Growth
from ..draft import Draft, Outputs
from ..engine import Engine
from ..rng import Rng, Use
from ..sequence import Cache, Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter


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
        """Prepare the draft's cache, if it has one of its own.

        Args:
            draft: a Frontier engine. Without `prefill` it runs over the target's cache.
            prefill: an engine that fills the draft's own cache with the prompt.
            sample: draw the siblings without replacement if the request samples.
            num_speculative_tokens: nodes below the pending token at most.
            max_depth: levels below the pending token at most.
        """
        self.engine, self.prefill, self.sample = draft, prefill, sample
        self.slots, self.depth = 1 + num_speculative_tokens, max_depth
        self.cache = Cache(draft.store) if prefill else None

    def propose(self, seq: Sequence) -> Draft:
        grower, tokens, parents = TreeGrower(), [seq.pending], [-1]
        probs: dict[int, np.ndarray] = {}
        cache, committed, outputs, first_row = self._run_root(seq, grower.grow([0], parents))
        level: list[tuple[float, int]] = [(1.0, 0)]  # Nodes to grow: the value left for children, and the slot.
        for depth in range(min(self.depth, seq.room)):
            if depth:
                growth, first_row = grower.grow([slot for _, slot in level], parents), 0
                outputs = growth.call(self.engine, cache, tokens, committed).run()
            below: list[tuple[float, int]] = []
            for row, (parent_value, slot) in enumerate(level, first_row):
                value = parent_value  # The part of the parent's probability that its further children can have.
                if self.sample and not seq.sampling.greedy:
                    assert outputs.logits_NV is not None
                    probs[slot] = seq.sampling.probs(outputs.logits_NV[row])
                    rng = seq.sampling.rng.at(len(seq.tokens) + depth, Use.DRAFT, slot)
                    children = _sampled(probs[slot].copy(), rng)
                else:
                    children = _likeliest(outputs, row)
                for token, share in children:
                    if value <= 1 / self.slots or len(tokens) == self.slots:
                        break
                    below.append((value * share, len(tokens)))
                    tokens.append(token)
                    parents.append(slot)
                    value *= 1 - share
            level = sorted((node for node in below if node[0] > 1 / self.slots), reverse=True)[: self.engine.slots]
            if not level or len(tokens) == self.slots:
                break
        return Draft(tuple(tokens), Tree(tuple(parents)), probs)

    def _run_root(self, seq: Sequence, growth: Growth) -> tuple[Cache, int, Outputs, int]:
        """Run the pending token, and before it the tokens that the draft's own cache lacks.

        Returns:
            The cache, the rows of the tree that it has committed, the outputs, and the pending token's row in them.
        """
        if self.cache is None or self.prefill is None:
            return seq.cache, 0, growth.call(self.engine, seq.cache, [seq.pending]).run(), 0
        feed = [*self.cache.sync(seq.tokens[:-1]), seq.pending]
        if len(feed) > self.engine.slots:
            self.prefill.extend(self.cache, feed[:-1])
            feed = feed[-1:]
        row = self.engine.extend(self.cache, feed)
        return self.cache, 1, self.engine.outputs, row


def _likeliest(outputs: Outputs, row: int) -> Iterator[tuple[int, float]]:
    """Yield the tokens of a top-k, likeliest first, each with its share of the probability that was left before it."""
    ranks, ids, logprobs = outputs.ranked()
    rest = 1.0
    for rank in range(ranks):
        probability = exp(logprobs[row, rank])
        yield ids[row, rank], probability / max(rest, 1e-9)
        rest -= probability


def _sampled(probs_V: np.ndarray, rng: Rng) -> Iterator[tuple[int, float]]:
    """Yield tokens drawn without replacement, each with its share of the probability that was left before it.

    A token is drawn only when the caller asks for it. The rule that accepts it is exact only if that decision does not
    depend on which token comes next.

    Args:
        probs_V: the distribution; overwritten.
        rng: the source of the draws.
    """
    while probs_V.sum() > 0:
        probs_V /= probs_V.sum()
        token = rng.pick(probs_V)
        yield token, float(probs_V[token])
        probs_V[token] = 0
