"""What every backend starts from: a graph traced at its block's shapes, public names of tensors, weights' places."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch._export.verifier import TrainingIRVerifier
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram, ExportGraphSignature, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import InputKind, InputSpec, OutputKind, OutputSpec, TensorArgument
from torch.fx import Graph, GraphModule, Node

from specc.passes.find import nodes, outputs
from specc.runtime.block import TARGET_ROWS, Block
from specc.runtime.engines.mapped_weights import read_header
from specc.runtime.manifest import Tensor as Spec


def export(graph: GraphModule, block: Block) -> ExportedProgram:
    """Trace a graph at its block's shapes, with weights as inputs, as torch.export would.

    It runs the nodes on tensors that have shapes but no data. That checks each operator and makes literals of the
    sizes, in a third of the time that torch.export takes.
    """
    return _Exporter(graph).program(block)


class _Exporter:
    """A copy of a graph in the making, node by node. `values` holds a node or a number for each node copied."""

    def __init__(self, graph: GraphModule) -> None:
        self.graph, self.twin, self.mode = graph, Graph(), FakeTensorMode()
        self.tensors: dict[str, Tensor] = {
            **dict(graph.named_parameters(remove_duplicate=False)),
            **dict(graph.named_buffers(remove_duplicate=False)),
        }
        self.values: dict[Node, Any] = {}
        self.inputs: list[InputSpec] = []

    def program(self, block: Block) -> ExportedProgram:
        """Copy the graph and describe the copy as torch.export does."""
        weights = self._weights()
        example = examples(self.graph, block)
        graph_inputs = [node for node in nodes(self.graph) if node.op == "placeholder"]
        for node, value in zip(graph_inputs, example, strict=True):
            self.values[node] = self._input(InputKind.USER_INPUT, node.name, value)
        results = self._calls(weights)
        ends = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in results]
        call = ModuleCallSignature(
            inputs=[],
            outputs=[],
            in_spec=pytree.tree_structure((example, {})),
            out_spec=pytree.tree_structure(results),
            forward_arg_names=[node.name for node in graph_inputs],
        )
        return ExportedProgram(
            root=GraphModule(self.graph, self.twin),
            graph=self.twin,
            graph_signature=ExportGraphSignature(self.inputs, ends),
            state_dict={name: self.tensors[name] for name in weights},
            range_constraints={},
            module_call_graph=[ModuleCallEntry("", call)],
            example_inputs=(example, {}),
            verifiers=[TrainingIRVerifier],
        )

    def _weights(self) -> dict[str, Node]:
        """Make an input of each weight that the graph reads; return the inputs by the weights' names."""
        inputs: dict[str, Node] = {}
        for name in dict.fromkeys(str(node.target) for node in nodes(self.graph) if node.op == "get_attr"):
            is_parameter = isinstance(self.tensors[name], torch.nn.Parameter)
            kind, letter = (InputKind.PARAMETER, "p") if is_parameter else (InputKind.BUFFER, "b")
            inputs[name] = self._input(kind, f"{letter}_{name.replace('.', '_')}", self.tensors[name], name)
        return inputs

    def _input(self, kind: InputKind, name: str, value: Tensor, target: str | None = None) -> Node:
        """Add an input of a value's shape and type. `target`: the weight that it stands for."""
        node = self.twin.placeholder(name)
        node.meta["val"] = self.mode.from_tensor(value, static_shapes=True)
        persistent = True if kind is InputKind.BUFFER else None
        self.inputs.append(InputSpec(kind, TensorArgument(node.name), target, persistent=persistent))
        return node

    def _calls(self, weights: Mapping[str, Node]) -> tuple[Node, ...]:
        """Copy the calls, and return the nodes that the graph returns. A call that gives a number becomes that."""
        results: tuple[Node, ...] = ()
        for node in nodes(self.graph):
            if node.op == "get_attr":
                self.values[node] = weights[str(node.target)]
            elif node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "output":
                results = tuple(pytree.tree_leaves(self._mapped(node)[0]))
                self.twin.output(results)
        return results

    def _call(self, node: Node) -> Any:
        args, kwargs = self._mapped(node)
        fake_args, fake_kwargs = fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
        assert callable(node.target)
        with self.mode, torch.no_grad():
            value = node.target(*fake_args, **fake_kwargs)
        if isinstance(value, int | float):
            return value
        new = self.twin.call_function(node.target, args, kwargs)
        new.meta = {**node.meta, "val": value}
        return new

    def _mapped(self, node: Node) -> tuple[Any, Any]:
        """Return a node's arguments with the copies of the nodes among them."""
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.values[n])
        return args, kwargs


def examples(graph: GraphModule, block: Block) -> tuple[Tensor, ...]:
    """Return inputs of the block's shapes, in the graph's order; the first one is `input_ids`."""
    _, *others = [node for node in nodes(graph) if node.op == "placeholder"]
    return torch.zeros(1, block.slots, dtype=torch.long), *(_example(node, block) for node in others)


def _example(node: Node, block: Block) -> Tensor:
    """Return an example of an input. What a block reads beside each token has a row for each slot."""
    value: Tensor = node.meta["val"]
    has_rows = node.name in block.inputs and node.name != TARGET_ROWS
    return value.new_zeros(1, block.slots, value.shape[-1]) if has_rows else value


def traced(graph: GraphModule, block: Block) -> ExportedProgram:
    """Trace a graph at its block's shapes by torch.export itself, which also knows writes in place."""
    with quiet(), torch.no_grad():
        return torch.export.export(graph, examples(graph, block), strict=False)


def tensors(
    graph: GraphModule, program: ExportedProgram, names: Mapping[Node, str] | None = None
) -> tuple[tuple[Spec, ...], tuple[Spec, ...]]:
    """Return a program's inputs and outputs in its order, under their public names.

    Args:
        graph: The graph that the program was traced from.
        program: The program.
        names: Public names of inputs that are not called after their placeholders.
    """
    values = {node.name: node.meta["val"] for node in program.graph.nodes if "val" in node.meta}
    public_names, signature = names or {}, program.graph_signature
    placeholders = [node for node in nodes(graph) if node.op == "placeholder"]
    input_names = [public_names.get(node) or public(node.name) for node in placeholders]
    return (
        tuple(_spec(name, values[own]) for name, own in zip(input_names, signature.user_inputs, strict=True)),
        tuple(_spec(name, values[own]) for name, own in zip(outputs(graph), signature.user_outputs, strict=True)),
    )


def _spec(name: str, value: Tensor) -> Spec:
    return Spec(name, str(value.dtype).removeprefix("torch."), tuple(int(size) for size in value.shape))


def public(name: str) -> str:
    """Return the public name of an input: past_key_values.0.key for past_key_values_0_key."""
    start, rest = "past_key_values", name.removeprefix("past_key_values_")
    return name if rest == name else f"{start}.{rest.replace('_', '.')}"


def stored_names(weights: Path) -> dict[str, str]:
    """Return for each name of a tensor in a safetensors file the name under which it is stored."""
    header, _ = read_header(weights)
    first: dict[tuple[int, int], str] = {}
    return {name: first.setdefault(tuple(entry["data_offsets"]), name) for name, entry in header.items()}


@contextlib.contextmanager
def quiet(logged: int = logging.WARNING) -> Iterator[None]:
    """Silence what torch prints, warns of, and logs up to a level. Errors that matter are raised."""
    level = logging.root.manager.disable
    logging.disable(max(level, logged))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
