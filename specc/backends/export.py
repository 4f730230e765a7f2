"""What every backend starts from: a graph traced at its block's shapes, names as users know them, weights' places."""

from __future__ import annotations

import contextlib
import io
import json
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

from specc.passes.find import outputs
from specc.runtime.block import Block
from specc.runtime.manifest import Tensor as Spec


def export(graph: GraphModule, block: Block) -> ExportedProgram:
    """The graph at its block's own shapes, weights as inputs, as torch.export would trace it once more.

    Going over the nodes with tensors that have shapes but no data checks each operator, and makes literals of the
    sizes; it takes a third of the time.
    """
    mode, twin = FakeTensorMode(), Graph()
    held = {**dict(graph.named_parameters(remove_duplicate=False)), **dict(graph.named_buffers(remove_duplicate=False))}
    made: dict[Any, Any] = {}  # by the node it stands for, or by the weight's name: a node, or a number
    inputs: list[InputSpec] = []

    def place(key: Any, kind: InputKind, name: str, value: Tensor, target: str | None = None) -> None:
        made[key] = twin.placeholder(name)
        made[key].meta["val"] = mode.from_tensor(value, static_shapes=True)
        kept = True if kind is InputKind.BUFFER else None
        inputs.append(InputSpec(kind, TensorArgument(made[key].name), target, persistent=kept))

    read = dict.fromkeys(str(n.target) for n in graph.graph.nodes if n.op == "get_attr")
    for name in read:
        kind = InputKind.PARAMETER if isinstance(held[name], torch.nn.Parameter) else InputKind.BUFFER
        place(name, kind, f"{kind.name[0].lower()}_{name.replace('.', '_')}", held[name], name)
    example = examples(graph, block)
    given = graph.graph.find_nodes(op="placeholder")
    for node, value in zip(given, example, strict=True):
        place(node, InputKind.USER_INPUT, node.name, value)
    for node in graph.graph.nodes:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: made[n])
        if node.op == "get_attr":
            made[node] = made[str(node.target)]
        elif node.op == "call_function":
            values = fx.node.map_arg((args, kwargs), lambda n: n.meta["val"])
            with mode, torch.no_grad():
                value = node.target(*values[0], **values[1])
            if not isinstance(value, int | float):
                made[node] = twin.call_function(node.target, args, kwargs)
                made[node].meta = {**node.meta, "val": value}
            else:
                made[node] = value
        elif node.op == "output":
            results = tuple(pytree.tree_leaves(args))
            twin.output(results)
    ends = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(n.name), None) for n in results]
    call = ModuleCallSignature(
        [], [], pytree.tree_structure((example, {})), pytree.tree_structure(results), [n.name for n in given]
    )
    return ExportedProgram(
        GraphModule(graph, twin), twin, ExportGraphSignature(inputs, ends), {name: held[name] for name in read}, {},
        [ModuleCallEntry("", call)], (example, {}), verifiers=[TrainingIRVerifier],
    )  # fmt: skip


def examples(graph: GraphModule, block: Block) -> tuple[Tensor, ...]:
    """Inputs of the block's shapes."""
    _, *others = graph.graph.find_nodes(op="placeholder")
    return torch.zeros(1, block.slots, dtype=torch.long), *(n.meta["val"] for n in others)


def traced(graph: GraphModule, block: Block) -> ExportedProgram:
    """The same by torch.export, for what compiles torch's own programs and writes in place."""
    with quiet(), torch.no_grad():
        return torch.export.export(graph, examples(graph, block), strict=False)


def tensors(
    graph: GraphModule, program: ExportedProgram, names: Mapping[Node, str] | None = None
) -> tuple[tuple[Spec, ...], tuple[Spec, ...]]:
    """A program's inputs and outputs in its order, as users know them. names: of inputs that are called otherwise."""
    held = {n.name: n.meta["val"] for n in program.graph.nodes if "val" in n.meta}
    known, ends = names or {}, program.graph_signature
    given = [known.get(n) or public(n.name) for n in graph.graph.find_nodes(op="placeholder")]
    inputs = tuple(_spec(name, held[own]) for name, own in zip(given, ends.user_inputs, strict=True))
    return inputs, tuple(_spec(name, held[own]) for name, own in zip(outputs(graph), ends.user_outputs, strict=True))


def _spec(name: str, value: Tensor) -> Spec:
    kind = str(value.dtype).removeprefix("torch.")
    return Spec(name, "float" if kind == "float32" else kind, tuple(int(d) for d in value.shape))


def public(name: str) -> str:
    """An input as users know it: past_key_values.0.key."""
    start, rest = "past_key_values", name.removeprefix("past_key_values_")
    return name if rest == name else f"{start}.{rest.replace('_', '.')}"


def read_header(weights: Path) -> tuple[dict[str, Any], int]:
    """What a safetensors file holds, and where its data begins."""
    with weights.open("rb") as f:
        size = int.from_bytes(f.read(8), "little")
        return json.loads(f.read(size)), 8 + size


@contextlib.contextmanager
def quiet(logged: int = logging.WARNING) -> Iterator[None]:
    """Without torch's prints and warnings, nor logs up to that level: what matters is raised."""
    level = logging.root.manager.disable
    logging.disable(max(level, logged))
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
