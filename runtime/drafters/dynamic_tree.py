"""A tree that changes each step: best-first by the draft's own probabilities, layer by layer.

DySpec's threshold construction (Xiong et al. 2024, arXiv:2410.11744): a node of value v gives children while what is
left of v exceeds 1 / slots; a child's value is the probability to reach and accept it. A layer costs one draft call.

    V  vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator
from math import exp

import numpy as np

from ..draft import Draft, Outputs
from ..engine import Engine
from ..sampling import Rng
from ..sequence import Cache, Sequence
from ..tree import Tree
from .plain import Plain
from .tree_grower import Call, TreeGrower


class DynamicTree(Plain):
    """`draft` runs over the target's cache, or over its own if there is a `prefill` to fill it.

    num_speculative_tokens: the most nodes below the pending token; max_depth: the most layers.
    """

    def __init__(
        self,
        draft: Engine,
        prefill: Engine | None = None,
        sample: bool = False,
        num_speculative_tokens: int = 15,
        max_depth: int = 6,
    ) -> None:
        self.engine, self.prefill, self.sample = draft, prefill, sample
        self.slots, self.depth = 1 + num_speculative_tokens, max_depth
        self.own = Cache(draft.store) if prefill else None

    def propose(self, seq: Sequence) -> Draft:
        grower, tokens, parents = TreeGrower(), [seq.pending], [-1]
        probs: dict[int, np.ndarray] = {}
        rows, outputs, first = self._root(seq, grower.call([0], parents))
        layer: list[tuple[float, int]] = [(1.0, 0)]
        for depth in range(min(self.depth, seq.room)):
            if depth:
                call, first = grower.call([slot for _, slot in layer], parents), 0
                outputs = call.run(self.engine, rows, tokens)
            below: list[tuple[float, int]] = []
            for row, (value, slot) in enumerate(layer, first):
                if self.sample and not seq.sampling.greedy:
                    assert outputs.logits_NV is not None
                    probs[slot] = seq.sampling.probs(outputs.logits_NV[row])
                    children = _drawn(probs[slot].copy(), seq.sampling.rng)
                else:
                    children = _likeliest(outputs, row)
                for token, share in children:
                    if value <= 1 / self.slots or len(tokens) == self.slots:
                        break
                    below.append((value * share, len(tokens)))
                    tokens.append(token)
                    parents.append(slot)
                    value *= 1 - share
            layer = sorted((b for b in below if b[0] > 1 / self.slots), reverse=True)[: self.engine.slots]
            if not layer or len(tokens) == self.slots:
                break
        return Draft(tuple(tokens), Tree(tuple(parents)), probs)

    def _root(self, seq: Sequence, call: Call) -> tuple[int, Outputs, int]:
        """Run the pending token; in a cache of its own, with what that lacks.

        Gives the number of rows before it, the outputs, and the pending token's row there.
        """
        if self.own is None or self.prefill is None:
            return len(seq.cache), call.run(self.engine, len(seq.cache), [seq.pending]), 0
        feed = [*self.own.sync(seq.tokens[:-1]), seq.pending]
        if len(feed) > self.engine.slots:
            self.prefill.extend(self.own, feed[:-1])
            feed = feed[-1:]
        row = self.engine.extend(self.own, feed)
        return len(self.own) - 1, self.engine.outputs, row


def _likeliest(outputs: Outputs, row: int) -> Iterator[tuple[int, float]]:
    """Tokens in the order in which they are tried, each with its share of what the elder ones left."""
    ranks, ids, logprobs = outputs.ranked()
    left = 1.0
    for rank in range(ranks):
        probability = exp(logprobs[row, rank])
        yield ids[row, rank], probability / max(left, 1e-9)
        left -= probability


def _drawn(left_V: np.ndarray, rng: Rng) -> Iterator[tuple[int, float]]:
    """The same, sampled: a token is drawn only when asked for. Whether it is must not depend on what it is."""
    while left_V.sum() > 0:
        left_V /= left_V.sum()
        token = rng.pick(left_V)
        yield token, float(left_V[token])
        left_V[token] = 0
