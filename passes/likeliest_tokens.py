"""Choose the likeliest tokens of a tree in a graph, from early logits.

T  tokens of the tree      K  tokens that are kept      N  slots      M  slots that are kept      V  vocabulary
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from specc.runtime.block import GuessTree

from .find import ADD, MUL, aten, constant, placeholder


@dataclass(frozen=True)
class LikeliestTokens:
    """The choice of the K likeliest tokens. Its methods insert nodes at the insertion point of the graph.

    Attributes:
        graph: the graph.
        topology: the tree, whose tokens all have as many guesses.
        count: K.
    """

    graph: GraphModule
    topology: GuessTree
    count: int

    @property
    def parents(self) -> list[int]:
        """The slots of tokens below which others stand, ascending. Early logits are needed there alone."""
        return sorted({0, *self.topology.token_tree.parents[1:]})

    def choose(self, logits: Node) -> Node:
        """Return the slots of the tokens of highest scores, the first ones at a tie: [K] int64, ascending.

        Args:
            logits: early logits of the slots in `parents`, [1, parents, V] float.
        """
        size = self.topology.tokens
        scores = self._scores(logits)
        columns, rows = self._call(aten.unsqueeze.default, scores, 1), self._call(aten.unsqueeze.default, scores, 0)
        earlier = constant(self.graph, "earlier", torch.ones(size, size, dtype=torch.bool).tril(-1))
        tied = self._call(aten.logical_and.default, self._call(aten.ge.Tensor, rows, columns), earlier)
        ahead = self._call(aten.logical_or.default, self._call(aten.gt.Tensor, rows, columns), tied)
        rank = self._call(aten.sum.dim_IntList, self._call(aten.to.dtype, ahead, torch.int64), [1])
        order = self._call(aten.scatter.src, self._zeros(), 0, rank, self._numbers("tokens", list(range(size))))
        best = self._call(aten.slice.Tensor, order, 0, 0, self.count)
        # Descending by the negative number is ascending, and all numbers differ, so that no tie is left to a backend.
        descending = self._call(aten.topk.default, self._call(aten.neg.default, best), self.count)
        return self._call(aten.neg.default, self._call(operator.getitem, descending, 0))

    def slots(self, kept_slots: Node) -> Node:
        """Return the slots of some tokens [K], and behind them those of their guesses: [M] int64."""
        table = self._numbers("guesses", [list(guesses) for guesses in self.topology.guesses])
        guesses = self._call(aten.reshape.default, self._call(aten.index_select.default, table, 0, kept_slots), [-1])
        return self._call(aten.cat.default, [kept_slots, guesses])

    def places(self, kept_slots: Node) -> Node:
        """Return the inverse of `slots`: for each slot its number among them, [N] int64; that of slot 0 if dropped."""
        topology = self.topology
        owners = [token for token, guesses in enumerate(topology.guesses) for _ in guesses]
        numbers = [number for guesses in topology.guesses for number in range(len(guesses))]
        kept_numbers = self._numbers("kept_numbers", list(range(self.count)))
        of_tokens = self._call(aten.scatter.src, self._zeros(), 0, kept_slots, kept_numbers)
        rows = self._call(aten.index_select.default, of_tokens, 0, self._numbers("owners", owners))
        first = self._call(MUL, rows, len(topology.guesses[0]))
        of_guesses = self._call(ADD, first, self._numbers("guess_numbers", [self.count + number for number in numbers]))
        return self._call(aten.cat.default, [of_tokens, of_guesses])

    def _scores(self, logits: Node) -> Node:
        """Return for each token the sum of log-probabilities along its path, [T] float, which falls along the path."""
        tree, vocabulary = self.topology.token_tree, int(logits.meta["val"].shape[-1])
        row = {slot: number for number, slot in enumerate(self.parents)}
        above = [max(parent, 0) for parent in tree.parents]
        ids = self._call(aten.select.int, placeholder(self.graph, "input_ids"), 0, 0)
        ids = self._call(aten.slice.Tensor, ids, 0, 0, tree.slots)
        starts = self._numbers("starts_of_rows", [row[parent] * vocabulary for parent in above])
        logprobs = self._call(aten.reshape.default, self._call(aten.log_softmax.int, logits, -1), [-1])
        own = self._call(aten.index_select.default, logprobs, 0, self._call(ADD, ids, starts))
        own = self._call(aten.clamp.default, own, None, 0)  # Rounding may leave a log-probability above 0.
        is_drafted = torch.tensor([float(slot > 0) for slot in range(tree.slots)])
        own = self._call(MUL, own, constant(self.graph, "is_drafted", is_drafted))
        scores, parents = own, self._numbers("token_parents", above)
        for _ in range(int(tree.depth.max()) - 1):
            scores = self._call(ADD, self._call(aten.index_select.default, scores, 0, parents), own)
        return scores

    def _zeros(self) -> Node:
        return self._numbers("zeros", [0] * self.topology.tokens)

    def _numbers(self, name: str, values: Any) -> Node:
        return constant(self.graph, name, torch.tensor(values))

    def _call(self, target: Callable[..., Any], *args: Any) -> Node:
        return self.graph.graph.call_function(target, args)
