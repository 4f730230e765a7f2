"""Find places in a graph by operator and module path, never by a model's name; add inputs and constants to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from specc.runtime.errors import PassError

from . import cell_operators, operators, row_operators  # noqa: F401  torch.ops.specc has its operators only after it
from .arguments import int_arg
from .slot_counts import fix_slots, fixed_slots

aten = torch.ops.aten
ATTENTION = torch.ops.specc.attention.default
CELLS = torch.ops.specc.cells.default
CACHED = torch.ops.specc.cached_attention.default
LANES = torch.ops.specc.lanes_attention.default
RMS_NORM = torch.ops.specc.rms_norm.default
ROTARY = torch.ops.specc.rotary.default
DEQUANTIZED_ROWS = torch.ops.specc.dequantized_rows.default
WRITE_ROWS = torch.ops.specc.write_rows.default
ROWS_ATTENTION = torch.ops.specc.rows_attention.default
ADD = aten.add.Tensor
MUL = aten.mul.Tensor
PANEL_LINEARS = (torch.ops.specc.panel_linear.default, torch.ops.specc.panel_quantized_linear.default)
LINEARS = (aten.linear.default, torch.ops.specc.quantized_linear.default, *PANEL_LINEARS)
MATRICES = (*LINEARS, aten.addmm.default, aten.mm.default, aten.bmm.default, aten.matmul.default)
SAME_VALUES = {aten.view.default, aten.reshape.default, aten._unsafe_view.default}
NUMBERED = re.compile(r"(?P<stem>.*\.)(?P<index>\d+)$")


def fork(graph: GraphModule) -> GraphModule:
    """Return a copy of a graph that can be rewritten on its own and shares the weights."""
    twin = Graph()
    twin.output(twin.graph_copy(graph.graph, {}), None)  # with a copy of each node's notes
    return GraphModule(graph, twin, type(graph).__name__)


def nodes(graph: GraphModule) -> list[Node]:
    """Return all nodes, in order. The list stays as it is while the graph is edited."""
    return list(graph.graph.nodes)


def calls(graph: GraphModule, *targets: Any) -> list[Node]:
    """Return the nodes that call one of the operators, in the order of the graph."""
    return [node for node in nodes(graph) if node.op == "call_function" and node.target in targets]


def placeholder(graph: GraphModule, name: str) -> Node:
    """Return the input of that name.

    Raises:
        PassError: The graph has no such input.
    """
    for node in nodes(graph):
        if node.op == "placeholder" and node.name == name:
            return node
    raise PassError(f"the graph has no input {name!r}")


def tensor_value(node: Node) -> Tensor | None:
    """Return the tensor that stands for a node's value: its shape and type, without data; None for other values."""
    value = node.meta.get("val")
    return value if isinstance(value, Tensor) else None


def replace(graph: GraphModule, node: Node, target: Callable[..., Any], args: tuple[Any, ...]) -> Node:
    """Insert a call in the place of `node`, with its users, its value's shape and its module path."""
    with graph.graph.inserting_before(node):
        new = graph.graph.call_function(target, args)
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    return new


def constant(graph: GraphModule, name: str, value: Tensor) -> Node:
    """Return the node that reads a buffer of this value.

    Args:
        graph: Where the buffer is registered.
        name: The buffer's name. If it is taken by another value, underscores are added.
        value: The buffer. Equal values of one name share one buffer and one node.
    """
    buffers = dict(graph.named_buffers(recurse=False, remove_duplicate=False))
    while name in buffers and not torch.equal(buffers[name], value):
        name += "_"
    for node in nodes(graph):
        if node.op == "get_attr" and node.target == name:
            return node
    graph.register_buffer(name, value)
    with graph.graph.inserting_before(after_placeholders(graph)):
        node = graph.graph.get_attr(name)
    node.meta["val"] = value
    return node


def new_input(graph: GraphModule, name: str, example: Tensor) -> Node:
    """Add an input after the inputs that the graph has. `example` gives its shape and type."""
    with graph.graph.inserting_before(after_placeholders(graph)):
        node = graph.graph.placeholder(name)
    node.meta["val"] = example
    return node


def after_placeholders(graph: GraphModule) -> Node:
    """Return the first node that is not an input."""
    return next(node for node in nodes(graph) if node.op != "placeholder")


def first_call(graph: GraphModule) -> Node:
    """Return the first node that is neither an input nor a weight."""
    return next(node for node in nodes(graph) if node.op not in ("placeholder", "get_attr"))


def outputs(graph: GraphModule) -> dict[str, Node]:
    """Return the graph's outputs by name.

    Raises:
        PassError: The graph does not return a dict of nodes.
    """
    named: Any = graph.graph.output_node().args[0]
    if not isinstance(named, Mapping):
        raise PassError(f"the graph returns {named!r}; a captured graph returns a dict of outputs")
    return dict(named)


def set_outputs(graph: GraphModule, named: Mapping[str, Node]) -> None:
    """Make the graph return these nodes under these names."""
    graph.graph.output_node().args = (dict(named),)


def paths(node: Node) -> list[str]:
    """Return the paths of the modules that a node lies in, the outermost first."""
    return [path for path, _ in (node.meta.get("nn_module_stack") or {}).values()]


def layers(graph: GraphModule) -> dict[int, str]:
    """Return the module path of each layer that has attention, by the index that its attention carries.

    Raises:
        PassError: An attention lies in no numbered module.
    """
    path_by_layer: dict[int, str] = {}
    for node in calls(graph, ATTENTION, CACHED, LANES):
        numbered = [path for path in paths(node) if NUMBERED.match(path)]
        if not numbered:
            raise PassError(f"{node.name} lies in no numbered module, but in {paths(node)}")
        path_by_layer[int_arg(node, -1)] = numbered[0]
    return path_by_layer


def sublayers(graph: GraphModule) -> Iterator[str]:
    """Name what a graph runs, by layer: "3" is a whole layer, "3.attention" and "3.mlp" are parts of one.

    A product with a matrix that lies outside the module of its layer's attention is taken for the MLP's. If attention
    lies in no numbered module, or in one itself, as in a trained head, all layers are whole.
    """
    attentions = calls(graph, ATTENTION, CACHED, LANES)
    if any(NUMBERED.match(paths(node)[-1]) or not any(map(NUMBERED.match, paths(node))) for node in attentions):
        yield from (f"{int_arg(node, -1)}" for node in attentions)
        return
    attention = {int_arg(node, -1): paths(node)[-1] for node in attentions}
    stems = {match["stem"] for path in layers(graph).values() if (match := NUMBERED.match(path))}
    products: dict[int, list[list[str]]] = {}
    for node in calls(graph, *MATRICES):
        for layer in _layer_indices(paths(node), stems):
            products.setdefault(layer, []).append(paths(node))
    for layer in sorted(products.keys() | attention.keys()):
        has_mlp = any(attention.get(layer) not in modules for modules in products.get(layer, []))
        if has_mlp and layer in attention:
            yield f"{layer}"
        else:
            yield f"{layer}.mlp" if has_mlp else f"{layer}.attention"


def _layer_indices(modules: Collection[str], stems: Collection[str]) -> set[int]:
    """Return the numbers of the layers among nested modules. `stems`: the layers' paths without their numbers."""
    matches = [NUMBERED.match(path) for path in modules]
    return {int(match["index"]) for match in matches if match and match["stem"] in stems}


def layer_output(graph: GraphModule, path: str) -> Node:
    """Return the node of a layer that later modules use: its residual stream.

    Raises:
        PassError: No node outside the layer uses one of its nodes.
    """
    leaving = [
        node
        for node in nodes(graph)
        if node.op == "call_function" and path in paths(node) and any(path not in paths(user) for user in node.users)
    ]
    if not leaving:
        raise PassError(f"{path}: no node outside the layer uses one of its nodes")
    return leaving[-1]


def layer_input(graph: GraphModule, path: str) -> Node:
    """Return the node that enters a layer with the residual stream: what depends on tokens and has a row a slot.

    Raises:
        PassError: No node does, or several do.
    """
    entering: dict[Node, None] = {}
    for node in nodes(graph):
        if path in paths(node):
            entering |= dict.fromkeys(other for other in node.all_input_nodes if path not in paths(other))
    fixed = computed_from(
        graph, [node for node in nodes(graph) if node.op == "placeholder" and node.name != "input_ids"]
    )
    size = layer_output(graph, path).meta["val"].shape[-1]
    streams = [
        node
        for node in entering
        if node not in fixed and (value := tensor_value(node)) is not None and value.shape[2:] == (size,)
    ]
    if len(streams) != 1:
        raise PassError(f"{path}: {len(streams)} values enter it that could be its hidden states")
    return streams[0]


def splice(graph: GraphModule, name: str, module: GraphModule, argument: Node) -> Node:
    """Copy a module of one input and one output to the insertion point of a graph.

    Args:
        graph: The graph. It gets a copy of the module's weights under `name`, which later passes may change.
        name: The prefix of the weights.
        module: What to copy.
        argument: Stands for the input. If its number of slots is fixed, the copy has that number.

    Returns:
        The copy of what the module returns.
    """
    graph.add_module(name, fork(module))
    copies: dict[Node, Node] = {}
    slots = fixed_slots(argument)
    for node in nodes(module):
        if node.op == "placeholder":
            copies[node] = argument
        elif node.op != "output":
            copies[node] = graph.graph.node_copy(node, copies.__getitem__)
            if slots is not None:
                fix_slots(copies[node], slots)
        if node.op == "get_attr":
            copies[node].target = f"{name}.{node.target}"
    (result,) = outputs(module).values()
    return copies[result]


def layer_outputs(graph: GraphModule, indices: Sequence[int]) -> list[Node]:
    """Return the hidden states after layers.

    Args:
        graph: The graph.
        indices: The layers. -1 is the last one, before the final norm; the number of layers is what the head reads.

    Raises:
        PassError: The graph has no such layer.
    """
    path_by_layer = layers(graph)
    last = max(path_by_layer)
    numbers = [last if index == -1 else index for index in indices]
    for index in numbers:
        if index not in path_by_layer and index != last + 1:
            raise PassError(f"no layer {index}; the graph has {sorted(path_by_layer)}")
    return [
        path_to_head(graph)[-1].all_input_nodes[0] if index > last else layer_output(graph, path_by_layer[index])
        for index in numbers
    ]


def side_by_side(graph: GraphModule, states: Sequence[Node]) -> Node:
    """Join states [1, slots, size] to one, [1, slots, states * size]."""
    if len(states) == 1:
        return states[0]
    joined = graph.graph.call_function(aten.cat.default, (list(states), -1))
    value = states[0].meta["val"]
    joined.meta["val"] = value.new_empty((*value.shape[:-1], sum(state.meta["val"].shape[-1] for state in states)))
    return joined


def path_to_head(graph: GraphModule) -> list[Node]:
    """Return the nodes from the logits back to the product that makes them, which is the last of the list.

    Raises:
        PassError: The logits do not come from a product alone.
    """
    path = [outputs(graph)["logits"]]
    while path[-1].target not in LINEARS:
        inputs = [node for node in path[-1].all_input_nodes if node.op == "call_function"]
        if len(inputs) != 1:
            raise PassError(f"the logits come from {path[-1].name}, and no linear head leads to it")
        path += inputs
    return path


def computed_from(graph: GraphModule, sources: Collection[Node]) -> set[Node]:
    """Return the sources, the weights, and the calls that need nothing else."""
    fixed = set(sources)
    for node in nodes(graph):
        inputs = node.all_input_nodes
        if node.op == "get_attr" or (node.op == "call_function" and inputs and fixed.issuperset(inputs)):
            fixed.add(node)
    return fixed


def evaluate(graph: GraphModule, node: Node, values: Mapping[Node, Any], limit: int = 64) -> Tensor | None:
    """Compute the value of a node.

    Args:
        graph: Where the weights are.
        node: The node to compute.
        values: Values of other nodes, to start from.
        limit: The number of values, those to start from included, beyond which it gives up.

    Returns:
        The value, or None if it needs more than `values` and the weights, more than `limit` values, or is no tensor.

    Raises:
        PassError: An operator refuses the values.
    """
    computed: dict[Node, Any] = dict(values)
    todo = [node]
    while todo:
        current = todo[-1]
        missing = [] if current in computed else [n for n in current.all_input_nodes if n not in computed]
        if current in computed:
            todo.pop()
        elif current.op == "get_attr":
            computed[current] = weight(graph, current)
        elif current.op != "call_function" or len(computed) > limit:
            return None
        elif missing:
            todo += missing
        else:
            computed[current] = _call(current, computed)
    value = computed[node]
    return value if isinstance(value, Tensor) else None


def _call(node: Node, values: Mapping[Node, Any]) -> Any:
    """Call a node's operator. Raises PassError if the operator refuses the values."""
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), values.__getitem__)
    assert callable(node.target)
    try:
        return node.target(*args, **kwargs)
    except (RuntimeError, IndexError) as e:  # the two errors that torch's operators raise
        raise PassError(f"{node.name} cannot be computed from these values: {e}") from e


def weight(graph: GraphModule, node: Node) -> Tensor:
    """Return the tensor that a get_attr node reads."""
    value: Any = graph
    for name in str(node.target).split("."):
        value = getattr(value, name)
    assert isinstance(value, Tensor)
    return value
