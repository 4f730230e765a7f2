"""A tree that changes each step: best-first by the draft's own probabilities, layer by layer.

DySpec's threshold construction (Xiong et al. 2024, arXiv:2410.11744): a node of value v gives children while what is
left of v exceeds 1 / slots; a child's value is the probability to reach and accept it. A layer costs one draft call.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..draft import Draft
from ..engine import Engine
from ..sequence import Cache, Sequence
from ..tree import Tree
from .frontier import Frontier
from .plain import Plain


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
        frontier = Frontier(self.engine, self._rows(seq), seq)
        tokens, parents, odds = [seq.pending], [-1], {}
        layer: list[tuple[float, int]] = [(1.0, 0)]
        for depth in range(self.depth):
            if depth:
                frontier.run([s for _, s in layer], [tokens[s] for _, s in layer], [parents[s] for _, s in layer])
            below: list[tuple[float, int]] = []
            for value, slot in layer:
                if self.sample and not seq.sampling.greedy:
                    odds[slot] = frontier.odds[slot]
                for token, share in self._children(frontier, slot, seq):
                    if value <= 1 / self.slots or len(tokens) == self.slots:
                        break
                    below.append((value * share, len(tokens)))
                    tokens.append(token)
                    parents.append(slot)
                    value *= 1 - share
            layer = sorted((b for b in below if b[0] > 1 / self.slots), reverse=True)[: self.engine.slots]
            if not layer or len(tokens) == self.slots:
                break
        frontier.close()
        return Draft(tuple(tokens), Tree(tuple(parents)), odds)

    def _rows(self, seq: Sequence) -> Cache:
        if self.own is None or self.prefill is None:
            return seq.cache.fork()
        feed = self.own.sync(seq.tokens)
        if len(feed) > self.engine.slots:
            self.prefill.extend(self.own, feed[:-1])
        return self.own

    def _children(self, frontier: Frontier, slot: int, seq: Sequence) -> Iterator[tuple[int, float]]:
        """Tokens in the order in which they are tried, each with its share of what the elder ones left.

        A sampled token is drawn only when asked for: whether it is asked for must not depend on what it is.
        """
        if self.sample and not seq.sampling.greedy:
            left = frontier.odds[slot].copy()
            while left.sum() > 0:
                left /= left.sum()
                token = seq.sampling.dice.pick(left)
                yield token, float(left[token])
                left[token] = 0
            return
        ids, probabilities = frontier.top[slot]
        elder = np.cumsum(probabilities) - probabilities
        for token, probability, gone in zip(ids, probabilities, elder, strict=True):
            yield int(token), float(probability / max(1 - gone, 1e-9))
