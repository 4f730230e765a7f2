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
    hold before that counts for nothing.

    Attributes:
        name: The head. Its weights get this name in the graph.
        after: The layer after which the slots begin; None for all layers.
        guesses: How many guesses the head has for a token.
        module: The graph of the head, whose one input is the hidden states.
        topology: Where the slots stand.
    """

    name: str
    after: int | None
    guesses: int
    module: GraphModule = field(repr=False, compare=False)
    topology: GuessTree | None = field(default=None, repr=False)

    def __call__(self, graph: GraphModule) -> int:
        topology = self.topology
        if topology is None or max(map(len, topology.guesses)) > self.guesses:
            raise PassError(f"{self.name} has {self.guesses} guesses for a token, and the tree is {topology}")
        stream = self._stream(graph)
        users = sorted(stream.users)
        starts_by_slot = {
            slot: token * self.guesses + number
            for token, slots in enumerate(topology.guesses)
            for number, slot in enumerate(slots)
        }
        index = torch.tensor([start for _, start in sorted(starts_by_slot.items())])
        starts_of = constant(graph, f"{self.name}_starts", index)

        def add(target: Callable[..., Any], *args: Any) -> Node:
            return graph.graph.call_function(target, args)

        with graph.graph.inserting_before(users[0]):
            tokens = add(aten.slice.Tensor, stream, 1, 0, topology.tokens)
            starts = splice(graph, self.name, self.module, stream)
            flat = add(aten.reshape.default, starts, [1, topology.slots * self.guesses, -1])
            joined = add(aten.cat.default, [tokens, add(aten.index_select.default, flat, 1, starts_of)], 1)
        joined.meta["val"] = stream.meta["val"]
        for user in users:
            user.replace_input_with(stream, joined)
        return len(starts_by_slot)

    def _stream(self, graph: GraphModule) -> Node:
        """Return the hidden states that the head reads."""
        path_by_layer = layers(graph)
        if self.after is None:
            return layer_input(graph, path_by_layer[min(path_by_layer)])
        if self.after not in path_by_layer:
            raise PassError(f"no layer {self.after}; the graph has {sorted(path_by_layer)}")
        return layer_output(graph, path_by_layer[self.after])
