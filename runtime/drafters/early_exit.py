"""Early-exit self-speculation on a static tree: the target's first layers, then its own norm and head.

The exit's likeliest tokens fill the tree by rank, level by level (Elhoushi et al. 2024, arXiv:2404.16710; static
trees: Cai et al. 2024, arXiv:2401.10774).
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from ..draft import Draft
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from .frontier import Frontier
from .plain import Plain


class EarlyExit(Plain):
    """`tree` is the parent vector baked into the verify engine; `draft` runs over the target's cache."""

    def __init__(self, draft: Engine, tree: Tokens[int], sample: bool = False) -> None:
        self.engine, self.tree, self.sample = draft, Tree(tuple(tree)), sample
        inner = [slot for slot in range(self.tree.slots) if self.tree.children[slot]]
        depths = sorted({int(self.tree.depth[slot]) for slot in inner})
        self.levels = [[slot for slot in inner if self.tree.depth[slot] == d] for d in depths]

    def propose(self, seq: Sequence) -> Draft:
        frontier = Frontier(self.engine, seq.cache.fork(), seq)
        tokens = [seq.pending] * self.tree.slots
        odds = {}
        for level in self.levels:
            if level != [0]:
                frontier.run(level, [tokens[s] for s in level], [self.tree.parents[s] for s in level])
            for slot in level:
                children = self.tree.children[slot]
                drawn = frontier.top[slot][0].tolist()
                if self.sample and not seq.sampling.greedy:
                    odds[slot] = frontier.odds[slot]
                    drawn = seq.sampling.children(odds[slot], len(children))
                for child, token in zip(children, drawn, strict=False):
                    tokens[child] = token
        return Draft(tuple(tokens), self.tree, odds)
