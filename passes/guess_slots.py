"""Let slots stand on no token: a trained head says what they read, and their logits are guesses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from specc.runtime.block import GuessTree
from specc.runtime.errors import PassError

from .find import aten, constant, layer_input, layer_output, layers, splice
from .protocol import Pass


@dataclass(frozen=True)
class GuessSlots(Pass):
    """A pass that replaces the hidden states of the slots behind the tokens by those that a trained head begins with.

    Given:   a = layers.0(x);  b = layers.1(a);  the module: states [1, N, size] -> starts [1, N, guesses, size]
    Result:  starts = module(a);  b = layers.1(cat(a[:, :tokens], starts[its token, its number]))

    With after=0 the head reads the states after layer 0, and with after=None those that enter layer 0. What the slots
    hold before that counts for nothing. Guesses that begin after another layer have a pass of their own, which leaves
    the other slots as they are.

    Attributes:
        name: The head. Its weights get this name in the graph.
        after: The layer after which the slots begin; None for all layers.
        guesses: How many guesses of the head begin there, for a token.
        module: The graph of the head, whose one input is the hidden states.
        topology: Where the slots stand.
        first: The number of the first of these guesses, from 0.
        limit: How many guesses the head has for a token; None if all begin there.
    """

    name: str
    after: int | None
    guesses: int
    module: GraphModule = field(repr=False, compare=False)
    topology: GuessTree | None = field(default=None, repr=False)
    first: int = 0
    limit: int | None = None

    def __call__(self, graph: GraphModule) -> int:
        topology, limit = self.topology, self.limit or self.guesses
        if topology is None or max(map(len, topology.guesses)) > limit:
            raise PassError(f"{self.name} has {limit} guesses for a token, and the tree is {topology}")
        stream = self._stream(graph)
        users = sorted(stream.users)
        rows = list(range(topology.slots))  # Row r of the states, or row (r - slots) of what slots begin with.
        for token, slots in enumerate(topology.guesses):
            for number, slot in enumerate(slots[self.first : self.first + self.guesses]):
                rows[slot] = topology.slots + token * self.guesses + number
        name = f"{self.name}_{self.first}" if self.first else self.name
        index = constant(graph, f"{name}_starts", torch.tensor(rows))

        def add(target: Callable[..., Any], *args: Any) -> Node:
            return graph.graph.call_function(target, args)

        with graph.graph.inserting_before(users[0]):
            starts = splice(graph, name, self.module, stream)
            flat = add(aten.reshape.default, starts, [1, topology.slots * self.guesses, -1])
            joined = add(aten.index_select.default, add(aten.cat.default, [stream, flat], 1), 1, index)
        joined.meta["val"] = stream.meta["val"]
        for user in users:
            user.replace_input_with(stream, joined)
        return sum(row >= topology.slots for row in rows)

    def _stream(self, graph: GraphModule) -> Node:
        """Return the hidden states that the head reads."""
        path_by_layer = layers(graph)
        if self.after is None:
            return layer_input(graph, path_by_layer[min(path_by_layer)])
        if self.after not in path_by_layer:
            raise PassError(f"no layer {self.after}; the graph has {sorted(path_by_layer)}")
        return layer_output(graph, path_by_layer[self.after])
