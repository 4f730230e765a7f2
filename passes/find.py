"""Where things are, by what the graph says: operators and module paths, never a model's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from specc.runtime.errors import PassError

from . import operators  # noqa: F401  registers the operators

aten = torch.ops.aten
ATTENTION = torch.ops.specc.attention.default
CACHED = torch.ops.specc.cached_attention.default
ADD = aten.add.Tensor
MUL = aten.mul.Tensor
LINEARS = (aten.linear.default, torch.ops.specc.quantized_linear.default)
MATRICES = (*LINEARS, aten.addmm.default, aten.mm.default, aten.bmm.default, aten.matmul.default)
SAME_VALUES = {aten.view.default, aten.reshape.default, aten._unsafe_view.default}


def calls(graph: GraphModule, *targets: Any) -> list[Node]:
    """The nodes that call one of the operators, in order."""
    return [n for n in graph.graph.nodes if n.op == "call_function" and n.target in targets]


def placeholder(graph: GraphModule, name: str) -> Node:
    """The input of that name. Raises PassError."""
    for node in graph.graph.nodes:
        if node.op == "placeholder" and node.name == name:
            return node
    raise PassError(f"the graph has no input {name!r}")


def replace(graph: GraphModule, node: Node, target: Callable[..., Any], args: tuple[Any, ...]) -> Node:
    """A call in the place of `node`, with its users, its value's shape and its module path."""
    with graph.graph.inserting_before(node):
        new = graph.graph.call_function(target, args)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    return new


def constant(graph: GraphModule, name: str, value: Tensor) -> Node:
    """The node that reads a buffer of this value, called `name` if that is free; one for equal values of one name."""
    while (held := graph._buffers.get(name)) is not None and not torch.equal(held, value):
        name += "_"
    for node in graph.graph.find_nodes(op="get_attr", target=name):
        return node
    graph.register_buffer(name, value)
    with graph.graph.inserting_before(first_call(graph, beyond={"placeholder"})):
        node = graph.graph.get_attr(name)
    node.meta["val"] = value
    return node


def new_input(graph: GraphModule, name: str, example: Tensor) -> Node:
    """One more input, after those that there are."""
    with graph.graph.inserting_before(first_call(graph, beyond={"placeholder"})):
        node = graph.graph.placeholder(name)
    node.meta["val"] = example
    return node


def first_call(graph: GraphModule, beyond: set[str] = {"placeholder", "get_attr"}) -> Node:  # noqa: B006
    """The first node that is no input and no weight."""
    return next(n for n in graph.graph.nodes if n.op not in beyond)


def outputs(graph: GraphModule) -> dict[str, Node]:
    """The graph's outputs by name."""
    return dict(graph.graph.output_node().args[0])


def set_outputs(graph: GraphModule, named: dict[str, Node]) -> None:
    graph.graph.output_node().args = (named,)


def paths(node: Node) -> list[str]:
    """The module paths that a node lies in, outermost first."""
    return [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]


def layers(graph: GraphModule) -> dict[int, str]:
    """The module path of each layer that has attention, by the index that its attention carries."""
    found: dict[int, str] = {}
    for node in calls(graph, ATTENTION, CACHED):
        inside = [p for p in paths(node) if re.search(r"\.\d+$", p)]
        if not inside:
            raise PassError(f"{node.name} lies in no numbered module, but in {paths(node)}")
        found[int(node.args[-1])] = inside[0]
    return found


def sublayers(graph: GraphModule) -> Iterator[str]:
    """What a graph runs, by layer: "3", "3.attention" or "3.mlp"."""
    attention = {int(n.args[-1]): paths(n)[-1] for n in calls(graph, ATTENTION, CACHED)}
    matrices = [paths(n) for n in calls(graph, *MATRICES)]
    pattern = re.compile(r"(.*\.)(\d+)$")
    stems = {m[1] for p in layers(graph).values() if (m := pattern.match(p))}
    inside = {int(m[2]) for p in matrices for x in p if (m := pattern.match(x)) and m[1] in stems}
    for layer in sorted(inside | attention.keys()):
        mine = [p for p in matrices if any((m := pattern.match(x)) and m[1] in stems and int(m[2]) == layer for x in p)]
        mlp = any(attention.get(layer) not in p for p in mine)
        yield f"{layer}" if mlp and layer in attention else f"{layer}.{'mlp' if mlp else 'attention'}"


def layer_output(graph: GraphModule, path: str) -> Node:
    """The node of a layer that later modules use: its residual stream."""
    leaving = [
        n
        for n in graph.graph.nodes
        if path in paths(n) and any(path not in paths(u) for u in n.users) and n.op == "call_function"
    ]
    if not leaving:
        raise PassError(f"{path}: nothing of it is used outside")
    return leaving[-1]


def addends(graph: GraphModule, path: str) -> dict[str, tuple[Node, Node]]:
    """The residual sums of a layer: {"input", "attention", "mlp"}, each as (the add, the operand that is the branch).

    They are followed from the layer's output through the adds of the layer's own code. In each sum one addend is the
    stream: what enters the layer, or what the sum's other addends are computed from. The others are branches: that
    which attention reaches without passing a sum is attention's, the other the MLP's.
    """
    found: dict[str, tuple[Node, Node]] = {}
    end = layer_output(graph, path)
    while "input" not in found:
        leaves = _leaves(end, path)
        sums, inside = {add for add, _, _ in leaves}, {leaf: _upstream(leaf, path) for _, _, leaf in leaves}
        streams = [leaf for leaf in inside if path not in paths(leaf)] or [
            leaf for leaf in inside if all(leaf in inside[other] for other in inside)
        ]
        for add, operand, leaf in leaves:
            if leaf in streams:
                end, kind = leaf, "input" if path not in paths(leaf) else "stream"
            else:
                attends = any(n.target is ATTENTION for n in _upstream(leaf, path, sums.union(streams)))
                kind = "attention" if attends else "mlp"
            if kind in found:
                raise PassError(f"{path}: two addends of its residual sum look like its {kind}")
            found[kind] = add, operand
        if not streams:
            break
        found.pop("stream", None)
    if missing := {"input", "attention", "mlp"} - found.keys():
        raise PassError(f"{path}: its residual sum has no addend for {', '.join(sorted(missing))}")
    return found


def _leaves(end: Node, path: str) -> list[tuple[Node, Node, Node]]:
    """The sum that `end` is computed from, its own adds undone: (add, operand as written, operand behind views)."""

    def own(node: Node) -> bool:
        return paths(node)[-1:] == [path]

    def adds(node: Node) -> bool:
        return own(node) and node.target is ADD and all(isinstance(a, Node) for a in node.args[:2])

    while not adds(end):
        if path not in paths(end) or not end.args or not isinstance(end.args[0], Node):
            return []
        end = end.args[0]
    leaves: list[tuple[Node, Node, Node]] = []
    todo = [(end, operand) for operand in end.args[:2]]
    while todo:
        add, operand = todo.pop()
        behind: Node = operand
        while behind.target in SAME_VALUES and own(behind):
            behind = behind.args[0]
        if adds(behind):
            todo += [(behind, inner) for inner in behind.args[:2]]
        else:
            leaves.append((add, operand, behind))
    return leaves


def _upstream(node: Node, path: str, stop: Collection[Node] = ()) -> set[Node]:
    """The layer's nodes that `node` is computed from, itself included, and those that feed them; not beyond `stop`."""
    seen: set[Node] = set()
    todo = [node]
    while todo:
        n = todo.pop()
        if n not in seen and n not in stop:
            seen.add(n)
            todo += n.all_input_nodes if path in paths(n) else []
    return seen


def evaluate(graph: GraphModule, node: Node, given: dict[Node, Tensor], limit: int = 64) -> Tensor | None:
    """The value of `node` from the values given, or None where it needs more than those and the weights."""
    values: dict[Node, Any] = dict(given)
    todo = [node]
    while todo:
        n = todo[-1]
        if n in values:
            todo.pop()
        elif n.op == "get_attr":
            values[n] = weight(graph, n)
        elif n.op != "call_function" or len(values) > limit:
            return None
        elif missing := [i for i in n.all_input_nodes if i not in values]:
            todo += missing
        else:
            args, kwargs = torch.fx.node.map_arg((n.args, n.kwargs), values.__getitem__)
            values[n] = n.target(*args, **kwargs)
    value = values[node]
    return value if isinstance(value, Tensor) else None


def weight(graph: GraphModule, node: Node) -> Tensor:
    """The tensor that a get_attr node reads."""
    value: Any = graph
    for name in str(node.target).split("."):
        value = getattr(value, name)
    assert isinstance(value, Tensor)
    return value
