"""Graphs of a few nodes, and their texts: what a pass is given, and what it makes of it, on one screen."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen
from torch.utils._pytree import tree_leaves

from specc import passes
from specc.passes import Pass
from specc.passes.drop_asserts import DropAsserts


class _Named(nn.Module):
    """A module whose outputs have names, as those of a captured model have."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.model, self.name = module, name

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return {self.name: self.model(*inputs)}


def small(
    module: nn.Module | Callable[..., Tensor],
    output: str = "logits",
    slots: Mapping[str, int] | None = None,
    **inputs: Tensor,
) -> GraphModule:
    """Export a module, or a function, of few nodes into the form that a captured model has.

    Args:
        module: What to export.
        output: The name of its one output.
        slots: The axis of some inputs whose length stays open, by the input's name.
        inputs: Example inputs by name, in the order of the arguments. The graph's inputs get these names.
    """
    if not isinstance(module, nn.Module):
        module = Function(module)
    examples = tuple(value.clone() for value in inputs.values())  # torch.export takes one tensor for one input
    length = torch.export.Dim("slots", min=2, max=64)
    axes = slots or {}
    shapes = {"inputs": tuple({axes[name]: length} if name in axes else None for name in inputs)} if axes else None
    program = torch.export.export(_Named(module.eval(), output), examples, dynamic_shapes=shapes, strict=False)
    graph = program.module(check_guards=False)
    assert isinstance(graph, GraphModule)
    graph.graph.set_codegen(CodeGen())
    (result,) = tree_leaves(graph.graph.output_node().args)
    graph.graph.output_node().args = ({output: result},)
    for name, node in zip(inputs, graph.graph.find_nodes(op="placeholder"), strict=True):
        node.name = node.target = name
    for node in reversed(graph.graph.find_nodes(op="placeholder")):
        next(iter(graph.graph.nodes)).prepend(node)
    return free(graph)


def free(graph: GraphModule) -> GraphModule:
    """Return a graph without the assertions of torch.export, which takes any number of inputs of any shape."""
    twin = passes.fork(graph)  # torch.export's module checks its inputs; a copy does not
    passes.run([DropAsserts()], twin)
    return twin


class Function(nn.Module):
    """A module of a function."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def rewrite(graph: GraphModule, step: Pass) -> str:
    """Run a pass; return the graph before it, the pass with the number of places that it changed, and the graph after.

    What stands above the arrow becomes what stands below it.
    """
    before = graph_text(graph)
    (record,) = passes.run([step], graph)
    return f"{before}\n--> {record.name} changed {record.changed}\n{graph_text(graph)}"


def graph_text(graph: GraphModule) -> str:
    """Print a graph as a reader would write it down, one call a line.

    A value is called after its operator, and numbered; a weight is `self.PATH`. The namespace `aten` and the names of
    overloads are left out.
    """
    names: dict[Node, str] = {}
    counts: Counter[str] = Counter()
    lines = []
    for node in graph.graph.nodes:
        if node.op == "placeholder":
            names[node] = node.name
        elif node.op == "get_attr":
            names[node] = "self." + str(node.target).removeprefix("model.")
        elif node.op == "call_function":
            text = _call_text(node, names)
            base = "item" if text.endswith("]") else _snake(text.partition("(")[0].rpartition(".")[2])
            counts[base] += 1
            names[node] = f"{base}_{counts[base]}"
            lines.append(f"{names[node]} = {text}")
        elif node.op == "output":
            lines.append(f"return {_text(node.args[0], names)}")
    inputs = ", ".join(node.name for node in graph.graph.nodes if node.op == "placeholder")
    texts = [f"inputs {inputs}", *lines]
    return "\n".join(textwrap.fill(text, 100, subsequent_indent="    ", break_long_words=False) for text in texts)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower().strip("_")


def _call_text(node: Node, names: dict[Node, str]) -> str:
    operator = str(node.target)
    if "_symbolic" in operator:
        return _onnx_text(node, names)
    arguments = [_text(value, names) for value in node.args]
    if "getitem" in operator:
        return f"{arguments[0]}[{arguments[1]}]"
    arguments += [f"{name}={_text(value, names)}" for name, value in node.kwargs.items()]
    namespace, name, *_ = operator.split(".")
    return f"{name if namespace == 'aten' else f'{namespace}.{name}'}({', '.join(arguments)})"


def _onnx_text(node: Node, names: dict[Node, str]) -> str:
    """Print an ONNX operator with its inputs and attributes."""
    values, name, *_ = node.args
    details: dict[str, Any] = dict(node.kwargs)
    stores = {"i": details["attr_ints"], "f": details["attr_floats"], "s": details["attr_strs"]}
    positions = zip(details["attr_keys"], details["attr_types"], details["attr_pos"], strict=True)
    attributes = [f"{key}={_text(stores[kind][start], names)}" for key, kind, (start, _) in positions]
    domain = f"{details['domain']}." if details["domain"] else ""
    inputs = [_text(value, names) for value in values]  # type: ignore[union-attr]
    return f"{domain}{name}({', '.join([*inputs, *attributes])})"


def _text(value: Any, names: dict[Node, str]) -> str:
    if isinstance(value, Node):
        return names[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_text(item, names)}" for name, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(item, names) for item in value) + "]"
    return str(value).removeprefix("torch.")


class Attend(nn.Module):
    """Attention of a layer, without projections: [1, heads, slots, size] to the same shape."""

    def __init__(self, layer: int, window: int = 0) -> None:
        super().__init__()
        self.layer, self.window = layer, window

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.specc.attention(x, x, x, None, 0.5, self.window, 0.0, self.layer)  # type: ignore[no-any-return]


class Layer(nn.Module):
    """A layer of attention and an MLP of one matrix, each added to the stream."""

    def __init__(self, index: int, window: int = 0) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attend(index, window), nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(x)
        return x + self.mlp(x)  # type: ignore[no-any-return]


class ParallelLayer(Layer):
    """A layer whose MLP reads what its attention reads."""

    def forward(self, x: Tensor) -> Tensor:
        return x + self.self_attn(x) + self.mlp(x)  # type: ignore[no-any-return]


class Layers(nn.Module):
    """A model of a few layers and a head, on hidden states [1, 2 heads, slots, 4]."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(layers or [Layer(0), Layer(1)])
        self.head = nn.Linear(4, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.head(x)  # type: ignore[no-any-return]


def hidden_states(slots: int = 3) -> Tensor:
    """Return random hidden states for `Layers`, [1, 2, slots, 4]."""
    return torch.randn(1, 2, slots, 4, generator=torch.Generator().manual_seed(1))
