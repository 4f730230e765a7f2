"""Let the attention of several layers read what enters the first (EasySpec, Wu et al. 2025, arXiv:2502.02493)."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule, Node

from specc.runtime.errors import PassError

from .find import layers, nodes
from .protocol import Pass
from .residual import residual_sums, upstream


@dataclass(frozen=True)
class ParallelLayers(Pass):
    """A pass that cuts the way from a layer to the attention of the next one, within groups of layers.

    The MLPs still run one after another, and each sum of the residual stream stays. So the attention of all layers of a
    group can run at the same time. Where attention and an MLP share a norm, attention gets a copy of it.

    Given:   a = x + attention.0(norm.0(x));  b = a + mlp.0(a);  c = b + attention.1(norm.1(b));  d = c + mlp.1(c)
    Result:  a = x + attention.0(norm.0(x));  b = a + mlp.0(a);  c = b + attention.1(norm.1(x));  d = c + mlp.1(c)

    Attributes:
        group: The number of layers of a group; the last group may have fewer.
    """

    group: int

    def __call__(self, graph: GraphModule) -> int:
        path_by_layer = layers(graph)
        if not 2 <= self.group <= len(path_by_layer):
            raise PassError(f"no groups of {self.group} layers; the graph has {len(path_by_layer)}: take 2 or more")
        in_order = [path_by_layer[i] for i in sorted(path_by_layer)]
        sums = [residual_sums(graph, path) for path in in_order]
        inputs = [each["input"].branch for each in sums]
        changed = 0
        for number, path in enumerate(in_order):
            first = number - number % self.group
            if number > first:
                attention = upstream(sums[number]["attention"].branch, path, [inputs[number]])
                mlp = upstream(sums[number]["mlp"].branch, path, [inputs[number], sums[number]["attention"].add])
                if not _redirect(graph, attention, mlp, inputs[number], inputs[first]):
                    raise PassError(f"{path}: nothing of its attention reads what enters the layer")
                changed += 1
        return changed


def _redirect(graph: GraphModule, branch: set[Node], others: set[Node], old: Node, new: Node) -> int:
    """Let a branch read another value. What others need too is copied for the branch.

    Args:
        graph: Where the nodes are.
        branch: The nodes of the branch.
        others: Nodes whose values must stay.
        old: The value that the branch reads.
        new: The value that it shall read, which stands before `old`.

    Returns:
        How many nodes of the branch read another value now.
    """
    copies, changed = {old: new}, 0
    for node in [node for node in nodes(graph) if node in branch]:
        if not copies.keys() & set(node.all_input_nodes):
            continue
        if node in others:
            with graph.graph.inserting_before(node):
                copies[node] = graph.graph.node_copy(node, lambda n: copies.get(n, n))
        else:
            for value in list(node.all_input_nodes):
                if value in copies:
                    node.replace_input_with(value, copies[value])
            changed += 1
    return changed
