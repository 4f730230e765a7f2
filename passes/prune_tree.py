"""Drop the tokens of a tree that are unlikely after the model's first layers, so that the others run on without them.

Speculative Streaming (Bhendawade et al. 2024, arXiv:2402.11131) prunes the tree within the step that verifies it.

K  tokens that are kept      N  slots      M  slots that are kept      V  vocabulary
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import GraphModule, Node

from specc.runtime.block import KEPT, GuessTree, Pruning
from specc.runtime.errors import PassError

from .arguments import int_arg
from .find import (
    ATTENTION,
    LINEARS,
    aten,
    calls,
    constant,
    layer_output,
    layers,
    nodes,
    outputs,
    set_outputs,
    tensor_value,
)
from .likeliest_tokens import LikeliestTokens
from .protocol import Pass
from .slot_counts import fix_slots, slot_axis

PRODUCTS = (*LINEARS, aten.addmm.default, aten.mm.default)


@dataclass(frozen=True)
class PruneTree(Pass):
    """A pass that lets the layers behind some first ones run on the likeliest tokens of a tree, and on their guesses.

    The model's own norm and product give early logits from the states after the first layers. The score of a token is
    the sum of the log-probabilities along its path. The K tokens of highest scores are kept, the first ones at a tie.
    So the parent of each kept token is kept too.

    Attention still has the N places of the tree. So all layers have their rows at the same places of the cache, and one
    mask serves them all. In the places of what was dropped stand rows of other slots, which no kept slot sees.

    Given:   a = layers.0(x);  y = attention(linear(norm(a)));  b = a + linear(y);  logits = head(norm(b))
    Result:  kept = the K tokens of highest scores by head(norm(a));  slots = kept and their guesses
             c = a[slots];  y = attention(linear(norm(c))[places]);  b = c + linear(y[slots]);  logits = head(norm(b))
             with M rows of logits, and of states for trained heads, and the new output `kept` [1, K] int64

    Guesses that begin behind these layers begin after this pass, in the tree of what is kept.

    Attributes:
        pruning: after how many layers, and how many tokens are kept.
        topology: the tree.
    """

    pruning: Pruning
    topology: GuessTree = field(repr=False)

    def __call__(self, graph: GraphModule) -> int:
        path_by_layer, after = layers(graph), self.pruning.after
        numbers = sorted(path_by_layer)
        if not 1 <= after < len(numbers):
            raise PassError(
                f"no pruning after {after} layers; the graph has {len(numbers)}: take 1..{len(numbers) - 1}"
            )
        states, last = (layer_output(graph, path_by_layer[numbers[place - 1]]) for place in (after, len(numbers)))
        behind, users = _depending(graph, states), sorted(states.users)
        attentions = [node for node in calls(graph, ATTENTION) if int_arg(node, -1) in numbers[after:]]
        on_all_places = _beside_attention(attentions, behind)
        tokens = LikeliestTokens(graph, self.topology, self.pruning.tokens)
        with graph.graph.inserting_before(users[0]):
            kept_slots = tokens.choose(_early_logits(graph, states, last, tokens.parents))
            slots = self.topology.first(self.pruning.tokens).slots
            rows = _Rows(graph, tokens.slots(kept_slots), tokens.places(kept_slots), slots, {*behind} - on_all_places)
            few = rows.kept(states)
        few.meta["nn_module_stack"] = states.meta.get("nn_module_stack")  # From now on the layer returns this.
        for user in users:
            user.replace_input_with(states, few)
        for node in behind:
            with graph.graph.inserting_before(node):
                if node in on_all_places:
                    rows.widen(node)
                else:
                    rows.narrow(node)
        with graph.graph.inserting_before(graph.graph.output_node()):
            one_batch = graph.graph.call_function(aten.unsqueeze.default, (kept_slots, 0))
            named = {name: node if node in rows.few else rows.kept(node) for name, node in outputs(graph).items()}
        set_outputs(graph, named | {KEPT: one_batch})
        return len(numbers) - after


def _depending(graph: GraphModule, source: Node) -> list[Node]:
    """Return the nodes whose values need that of `source`, in order."""
    region = {source: None}
    for node in nodes(graph):
        if node.op == "call_function" and not region.keys().isdisjoint(node.all_input_nodes):
            region[node] = None
    return list(region)[1:]


def _beside_attention(attentions: Collection[Node], behind: Sequence[Node]) -> set[Node]:
    """Return the nodes between the products before some attentions and the products behind them.

    Raises:
        PassError: No product stands behind an attention, so that the logits are among them.
    """
    region: set[Node] = set()
    todo, inside = list(attentions), {*behind}
    while todo:
        node = todo.pop()
        if node in inside and node not in region and node.target not in PRODUCTS:
            region.add(node)
            todo += node.all_input_nodes
    for node in behind:
        if node.target not in PRODUCTS and not region.isdisjoint(node.all_input_nodes):
            region.add(node)
    if any(user.op == "output" for node in region for user in node.users):
        raise PassError("no product stands between attention and the logits; leave pruning out")
    return region


def _early_logits(graph: GraphModule, states: Node, last: Node, slots: Sequence[int]) -> Node:
    """Insert what the model has between its last layer and the logits, for the states of some slots: [1, slots, V]."""
    logits, way = outputs(graph)["logits"], _depending(graph, last)
    sources = {logits}
    for node in reversed(way):
        if node in sources:
            sources.update(node.all_input_nodes)
    index = constant(graph, "parent_slots", torch.tensor(slots))
    copies = {last: graph.graph.call_function(aten.index_select.default, (states, 1, index))}
    for node in nodes(graph):
        if node in sources and (node in way or node.op == "get_attr"):  # A weight may stand behind the place of a copy.
            copies[node] = graph.graph.node_copy(node)
            fix_slots(copies[node], len(slots), copies)
    return copies[logits]


class _Rows:
    """Values with a row for each slot, of all slots or of those that are kept.

    Attributes:
        graph: the graph. Nodes are inserted at its insertion point.
        slots: the node with the slots that are kept, [M].
        places: the node with the number of each slot among them, [N].
        count: M.
        few: the nodes that have, or will have, rows for what is kept alone.
    """

    def __init__(self, graph: GraphModule, slots: Node, places: Node, count: int, few: set[Node]) -> None:
        self.graph, self.slots, self.places, self.count, self.few = graph, slots, places, count, few
        self._axes = {node: axis for node in nodes(graph) if (axis := slot_axis(node)) is not None}
        self._shapes = {node: tensor_value(node) for node in self._axes}  # before any of them changes
        self._kept: dict[Node, Node] = {}
        self._placed: dict[Node, Node] = {}

    def kept(self, node: Node) -> Node:
        """Return the rows of a value that are kept."""
        if node not in self._kept:
            self._kept[node] = self._select(node, self.slots)
            fix_slots(self._kept[node], self.count)
            self.few.add(self._kept[node])
        return self._kept[node]

    def narrow(self, node: Node) -> None:
        """Let a node compute what is kept alone."""
        others = [argument for argument in node.all_input_nodes if argument not in self.few and argument in self._axes]
        fix_slots(node, self.count, {argument: self.kept(argument) for argument in others})

    def widen(self, node: Node) -> None:
        """Let a node compute all places, from rows of what is kept."""
        for argument in node.all_input_nodes:
            if argument in self.few:
                if argument not in self._placed:
                    self._placed[argument] = self._select(argument, self.places)
                node.replace_input_with(argument, self._placed[argument])

    def _select(self, node: Node, index: Node) -> Node:
        """Insert the choice of rows of a value, which gets the shape that the value had."""
        if node not in self._axes:
            raise PassError(f"{node.name} has no axis of slots; leave pruning out")
        new = self.graph.graph.call_function(aten.index_select.default, (node, self._axes[node], index))
        new.meta["val"] = self._shapes[new] = self._shapes[node]
        self._axes[new] = self._axes[node]
        return new
