"""Keep one loop of a recursive model, for slots of which each runs a loop of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from specc.runtime.block import LOOP, STATE
from specc.runtime.errors import PassError

from .arguments import node_arg
from .find import (
    ADD,
    ATTENTION,
    MUL,
    RMS_NORM,
    aten,
    constant,
    first_call,
    layer_input,
    layer_output,
    layers,
    new_input,
    outputs,
    set_outputs,
    weight,
)
from .protocol import Pass

LINEAR = aten.linear.default
LAYER_NORM = aten.layer_norm.default

Weights = dict[Node, dict[int, tuple[Node, ...]]]  # of each loop, by the call and the number of its argument


@dataclass(frozen=True)
class OneLoop(Pass):
    """A pass that leaves one loop of a recursive model. An input says of each slot which loop it runs.

    In the first loop a slot reads its token, and in a later one the hidden states that the loop before it left. The
    model's own norm and head follow each loop, as an early exit. Matrices that all loops share are read once, whatever
    loops the slots run. The products of low rank stand side by side, and a slot keeps the part of its own loop.

    Given:   a = layers.0(embed(input_ids));  b = layers.1(a);  y = head(norm(b))
           layer l:  rms_norm(x, w_l);  linear(x, shared, b_l);  linear(x, shared) + linear(linear(x, down_l), up_l)
    Result:  a = layers.0(where(loop[0] > 0, embed(input_ids), state));  y = head(norm(a));  state:NAME = a
             rms_norm(x, 1) * (loop @ [w_0; w_1]);  linear(x, shared) + loop @ [b_0; b_1];  linear(x, shared) +
             linear(linear(x, [down_0; down_1]) * spread, [up_0, up_1])            with loops=2, one layer a loop

    Inputs added: `loop` [1, slots, loops] float, 1 in the column of the slot's loop and 0 elsewhere, and `state`
    [1, slots, size]. `spread` has each column of `loop` as often as the product has ranks.

    Attributes:
        loops: How many loops the model has.
        name: The name of the states that the loop leaves for the next one.
    """

    loops: int
    name: str

    def __call__(self, graph: GraphModule) -> int:
        path_by_layer = layers(graph)
        paths = [path_by_layer[index] for index in sorted(path_by_layer)]
        block, rest = divmod(len(paths), self.loops)
        if rest:
            raise PassError(f"{len(paths)} layers do not run in {self.loops} loops")
        ends = [layer_output(graph, paths[last]) for last in range(block - 1, len(paths), block)]
        starts = [layer_input(graph, paths[0]), *ends[:-1]]
        weights = _own_weights(starts, ends)
        ends[-1].replace_all_uses_with(ends[0])
        value = starts[0].meta["val"]
        state = new_input(graph, "state", value)
        loop = new_input(graph, LOOP, value.new_empty((*value.shape[:-1], self.loops)))
        set_outputs(graph, outputs(graph) | {f"{STATE}{self.name}": ends[0]})
        _Chooser(graph, loop).choose_all(weights)
        self._enter(graph, starts[0], state, loop)
        return len(weights) or 1

    def _enter(self, graph: GraphModule, start: Node, state: Node, loop: Node) -> None:
        """Let slots of later loops read `state` in the place of what their tokens give."""
        users = list(start.users)
        with graph.graph.inserting_after(start):
            first = graph.graph.call_function(aten.slice.Tensor, (loop, 2, 0, 1))
        with graph.graph.inserting_after(first):
            is_first = graph.graph.call_function(aten.gt.Scalar, (first, 0.5))
        with graph.graph.inserting_after(is_first):
            entering = graph.graph.call_function(aten.where.self, (is_first, start, state))
        first.meta["val"] = start.meta["val"].new_empty((*start.meta["val"].shape[:-1], 1))
        is_first.meta["val"] = first.meta["val"] > 0.5
        entering.meta = dict(start.meta)
        for user in users:
            user.replace_input_with(start, entering)


def _own_weights(starts: Sequence[Node], ends: Sequence[Node]) -> Weights:
    """Return the calls of the first loop that read another weight in another loop, with the weights of all loops.

    Args:
        starts: What enters each loop.
        ends: What leaves it.

    Raises:
        PassError: The loops compute different things.
    """
    weights: Weights = {}
    places = {tuple(starts)}
    todo = [tuple(ends)]
    while todo:
        calls = todo.pop()
        if calls in places or len(set(calls)) == 1:  # Positions and masks are one value for all loops.
            continue
        places.add(calls)
        first, arguments = calls[0], [_inputs(call) for call in calls]
        if len({_signature(call) for call in calls}) > 1:
            raise PassError(f"{', '.join(call.name for call in calls)} differ, so the loops cannot share one call")
        for inputs in zip(*arguments, strict=True):
            if {node.op for node in inputs} != {"get_attr"}:
                todo.append(inputs)
            elif len({node.target for node in inputs}) > 1:
                place = first.args.index(inputs[0]) if inputs[0] in first.args else -1
                weights.setdefault(first, {})[place] = inputs
    return weights


def _inputs(node: Node) -> list[Node]:
    """Return the nodes among the arguments of a call, in order."""
    inputs: list[Node] = []
    map_arg((node.args, node.kwargs), inputs.append)
    return inputs


def _signature(node: Node) -> tuple[Any, ...]:
    """Return what calls of several loops have in common: the operator and all arguments but nodes and layer numbers."""
    if node.op != "call_function":
        return node.op, node.name
    args = node.args[:-1] if node.target is ATTENTION else node.args
    return node.target, str(map_arg((args, node.kwargs), lambda _: None))


class _Chooser:
    """A rewriter of calls, so that each slot reads the weights of its own loop.

    Args:
        graph: The graph.
        loop: The input that says which loop a slot runs.
    """

    def __init__(self, graph: GraphModule, loop: Node) -> None:
        self.graph, self.loop = graph, loop
        self.value = loop.meta["val"]
        self._spreads: dict[int, Node] = {}

    def choose_all(self, weights: Weights) -> None:
        """Rewrite all calls that read another weight in each loop.

        Raises:
            PassError: A call is none that loops can share.
        """
        for node, own in weights.items():
            with self.graph.graph.inserting_before(node):
                new = self._choose(node, own, weights)
            if new is not node:
                new.meta["val"] = node.meta["val"]
                node.replace_all_uses_with(new)

    def _choose(self, node: Node, own: Mapping[int, tuple[Node, ...]], weights: Weights) -> Node:
        """Return the node that stands for `node`; the node itself if it stays, or leads to ranks that nobody reads."""
        places, args = set(own), node.args
        if node.target in (ADD, MUL):
            for place, nodes in own.items():
                node.update_arg(place, self._row(nodes, node))
            return node
        if node.target is LINEAR and places == {2}:
            return self._add(self._call(node, *args[:2]), own[2])
        if node.target is LINEAR and places == {1} and len(args) == 2:
            ranks = node_arg(node, 0)
            if ranks.target is LINEAR and set(weights.get(ranks, ())) == {1}:
                return self._low_rank(node, ranks, weights[ranks][1], own[1])
            if all(user.target is LINEAR and set(weights.get(user, ())) == {1} for user in node.users):
                return node
        if node.target is RMS_NORM and places == {1}:
            size = weight(self.graph, own[1][0]).shape[0]
            ones = constant(self.graph, f"ones_{size}", torch.ones(size))
            return self._scale(self._call(node, args[0], ones, *args[2:]), own[1])
        if node.target is LAYER_NORM and places == {place for place in (2, 3) if args[place] is not None}:
            normed = self._scale(self._call(node, *args[:2], None, None, *args[4:]), own[2])
            return self._add(normed, own[3]) if 3 in own else normed
        raise PassError(f"{node.name} reads weights of its own in each loop, so the loops cannot share its call")

    def _call(self, node: Node, *args: Any) -> Node:
        """Insert the call of `node` with other arguments."""
        assert callable(node.target)
        new = self.graph.graph.call_function(node.target, args)
        new.meta = dict(node.meta)
        return new

    def _add(self, x: Node, biases: Sequence[Node]) -> Node:
        return self._with_value(x.meta["val"], ADD, x, self._row(biases, x))

    def _scale(self, x: Node, scales: Sequence[Node]) -> Node:
        return self._with_value(x.meta["val"], MUL, x, self._row(scales, x))

    def _row(self, vectors: Sequence[Node], like: Node) -> Node:
        """Insert the vector of each slot's own loop, [1, slots, size], with one dimension more if `like` has heads."""
        table = self._stacked(vectors, torch.stack)
        row = self._with_value(self._sized(table.meta["val"].shape[1]), aten.matmul.default, self.loop, table)
        shape = like.meta["val"].shape
        if len(shape) == 4:  # [1, slots, heads, size], or [1, heads, slots, size]
            axis = 1 if isinstance(shape[1], int) else 2
            row = self._with_value(row.meta["val"].unsqueeze(axis), aten.unsqueeze.default, row, axis)
        return row

    def _low_rank(self, node: Node, ranks: Node, downs: Sequence[Node], ups: Sequence[Node]) -> Node:
        """Insert the products of low rank of all loops, of which each slot keeps that of its own."""
        down = self._stacked(downs, torch.cat)
        up = self._stacked(ups, torch.hstack)
        size = down.meta["val"].shape[0]
        every = self._with_value(self._sized(size), LINEAR, node_arg(ranks, 0), down)
        own = self._with_value(self._sized(size), MUL, every, self._spread(size // len(downs)))
        return self._call(node, own, up)

    def _spread(self, rank: int) -> Node:
        """Return the input `loop` with each column `rank` times, [1, slots, loops * rank]."""
        if rank not in self._spreads:
            loops = self.value.shape[-1]
            columns = constant(self.graph, f"spread_{rank}", torch.eye(loops).repeat_interleave(rank, 1))
            with self.graph.graph.inserting_before(first_call(self.graph)):
                args = aten.matmul.default, self.loop, columns
                self._spreads[rank] = self._with_value(self._sized(loops * rank), *args)
        return self._spreads[rank]

    def _stacked(self, nodes: Sequence[Node], join: Callable[[list[Tensor]], Tensor]) -> Node:
        """Return the node of a new weight that holds those of all loops. It is kept beside that of the first loop."""
        path, _, name = str(nodes[0].target).rpartition(".")
        value = join([weight(self.graph, node).detach() for node in nodes])
        module = self.graph.get_submodule(path)
        if not hasattr(module, f"loops_{name}"):
            module.register_buffer(f"loops_{name}", value)
        node = self.graph.graph.get_attr(f"{path}.loops_{name}" if path else f"loops_{name}")
        node.meta["val"] = value
        return node

    def _sized(self, size: int) -> Tensor:
        """Return what stands for a value [1, slots, size]."""
        value: Tensor = self.value.new_empty((*self.value.shape[:-1], size))
        return value

    def _with_value(self, value: Tensor, target: Any, *args: Any) -> Node:
        node = self.graph.graph.call_function(target, args)
        node.meta["val"] = value
        return node
