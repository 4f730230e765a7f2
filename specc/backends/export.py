"""What every backend starts from: a graph traced at its block's shapes, names as users know them, weights' places."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch._export.verifier import TrainingIRVerifier
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram, ExportGraphSignature, ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import InputKind, InputSpec, OutputKind, OutputSpec, TensorArgument
from torch.fx import Graph, GraphModule

from specc.runtime.block import Block


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
    outputs = [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(n.name), None) for n in results]
    call = ModuleCallSignature(
        [], [], pytree.tree_structure((example, {})), pytree.tree_structure(results), [n.name for n in given]
    )
    return ExportedProgram(
        GraphModule(graph, twin), twin, ExportGraphSignature(inputs, outputs), {name: held[name] for name in read}, {},
        [ModuleCallEntry("", call)], (example, {}), verifiers=[TrainingIRVerifier],
    )  # fmt: skip


def examples(graph: GraphModule, block: Block) -> tuple[Tensor, ...]:
    """Inputs of the block's shapes."""
    given = graph.graph.find_nodes(op="placeholder")
    return torch.zeros(1, block.slots, dtype=torch.long), *(torch.zeros_like(n.meta["val"]) for n in given[1:])


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
def quiet() -> Any:
    """Without torch's prints and warnings: what matters is raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
