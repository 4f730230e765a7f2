"""Blocks as ONNX files for ONNX Runtime; weights stay in the bundle's one file and are referred to."""

from __future__ import annotations

import ast
import operator
from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch.fx import GraphModule
from torch.onnx._internal.exporter import _core
from torch.onnx._internal.exporter._registration import ONNXRegistry

from specc import passes
from specc.backends import DEFAULT, Built, Options
from specc.backends.commit_graph import commit, moves
from specc.backends.export import export, public, quiet, read_header
from specc.backends.lowering import any_width as widths
from specc.backends.lowering import onnx_fast, onnx_portable
from specc.backends.lowering.half_precision import TYPES, Half
from specc.runtime.block import Block
from specc.runtime.errors import BackendError
from specc.runtime.manifest import Tensor

suffix = ".onnx"
types = ("fp32", "fp16", "bf16", "int8", "int4")
together = True
OPSETS = {"fast": 23, "portable": 24}
INLINE = 1024  # bytes: what is smaller stands in the graph
LARGEST_CONSTANT = 1 << 20  # bytes: so much an engine may hold besides the model's weights


def build(
    graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
) -> Built:
    """Write `file`: ONNX of opset 23 with contrib operators, or of opset 24 without. Raises BackendError."""
    lowering = _lowering(block, options)
    model = translate(graph, block, lowering)
    _refer(model, weights, prefix, file)
    if lowering == "fast":
        _gather_apart(model)
    ir.save(model, file)
    inputs, outputs = tensors(model, block.slots)
    if lowering == "fast" or not moves(block):
        return Built(inputs, outputs)
    commit_file = file.with_suffix(".commit.onnx")
    ir.save(commit(inputs, block.slots, from_rows=False), commit_file)
    return Built(inputs, outputs, commit=commit_file.name)


def any_width(graph: GraphModule, block: Block, options: Options = DEFAULT) -> bool:
    """Whether one file runs this block and all that differ from it in width alone."""
    return _lowering(block, options) == "fast" and _counted(graph, block)


def _counted(graph: GraphModule, block: Block) -> bool:
    """What torch.onnx has no translation for is decomposed, at one size."""
    known = _translations(OPSETS["fast"]).is_registered
    called = {n.target for n in graph.graph.nodes if n.op == "call_function"}
    own = {t for t in called if getattr(t, "namespace", "") == "specc" or t is operator.getitem}
    return widths.possible(graph, block) and all(known(t) for t in called - own)


def _lowering(block: Block, options: Options) -> str:
    return options.lowering or ("portable" if block.weights in ("fp16", "bf16") else "fast")


def requirements() -> list[str]:
    """Nothing: what compiles at all has what this needs."""
    return []


def translate(graph: GraphModule, block: Block, lowering: str, rows: bool = False) -> ir.Model:
    """The block in ONNX, weights inside; with `rows`, it returns the rows that it writes. Raises BackendError."""
    dtype, counted = TYPES.get(block.weights, torch.float32), False
    if lowering == "fast":
        if dtype != torch.float32:
            raise BackendError(f"the fast lowering has no {block.weights}; take --lowering portable")
        if counted := _counted(graph, block):
            block = widths.traced_at(block)
        passes.run([*onnx_fast.lowering(block.slots, counted), *[widths.AnyWidth()] * counted], graph)
    else:
        if block.weights not in TYPES:
            raise BackendError(f"the portable lowering has no {block.weights} weights; take {', '.join(TYPES)}")
        if dtype != torch.float32:
            passes.run([Half(dtype)], graph)
        passes.run(onnx_portable.lowering(block.slots, dtype, rows), graph)
    model = _translate(export(graph, block), OPSETS[lowering])
    _name(model, graph)
    if counted:
        widths.name_slots(model)
    if lowering == "portable":
        _place(model)
    _strip(model)
    return model


def tensors(model: ir.Model, slots: int = 0) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The inputs and the outputs, at so many slots where their number is open."""
    graph = model.graph
    return tuple(_tensor(v, slots) for v in graph.inputs), tuple(_tensor(v, slots) for v in graph.outputs)


def _translate(program: torch.export.ExportedProgram, opset: int) -> ir.Model:
    """Operator by operator as they stand, which most have a translation for; decomposed, slowly, where one has none."""
    decompose = program.run_decompositions
    program.run_decompositions = lambda *_, **__: program
    with quiet():
        try:
            made = _onnx(program, opset)
        except Exception:
            program.run_decompositions = decompose
            try:
                made = _onnx(program, opset)
            except Exception as e:
                raise BackendError(f"torch.onnx cannot translate the graph: {e.__cause__ or e}".splitlines()[0]) from e
    return made.model


def _onnx(program: torch.export.ExportedProgram, opset: int) -> torch.onnx.ONNXProgram:
    """What torch.onnx.export does, with a table of translations that is made once."""
    return _core.export(program, registry=_translations(opset), optimize=False, verbose=False, opset_version=opset)


@cache
def _translations(opset: int) -> ONNXRegistry:
    with quiet():
        return ONNXRegistry.from_torchlib(opset)


def _name(model: ir.Model, graph: GraphModule) -> None:
    """Inputs and outputs as users know them: past_key_values.0.key, present.0.key."""
    for value in model.graph.inputs:
        assert value.name is not None
        value.name = public(value.name)
    for value, name in zip(model.graph.outputs, passes.find.outputs(graph), strict=True):
        value.name = name


def _place(model: ir.Model) -> None:
    """Name each node after the module that it comes from, for what other parsers say of it."""
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        if scopes[1:-1]:
            node.name = f"{scopes[-2]}/{node.name}"


def _refer(model: ir.Model, weights: Path, prefix: str, file: Path) -> None:
    """Point each initializer that the weights file holds into it; ONNX Runtime wants the two in one directory."""
    header, start_of_data = read_header(weights)
    for name, value in model.graph.initializers.items():
        tensor: Any = value.const_value
        if tensor.nbytes < INLINE:
            continue
        held = header.get(prefix + name)
        if held is None and tensor.nbytes <= LARGEST_CONSTANT:  # a pass's constant, such as a tree's mask
            continue
        if held is None:
            raise BackendError(f"{name} of {tensor.nbytes} bytes is in no weights file")
        start, end = held["data_offsets"]
        value.const_value = ir.ExternalTensor(
            weights.name, start_of_data + start, end - start, tensor.dtype, name=name, shape=tensor.shape,
            base_dir=file.parent,
        )  # fmt: skip


def _gather_apart(model: ir.Model) -> None:
    """A weight that is gathered from and multiplied by stands under two names, over the same bytes.

    So ONNX Runtime gives up what it packed for the product, and of the other only the rows that are read take memory.
    """
    for name, value in list(model.graph.initializers.items()):
        gathers = [node for node in value.consumers() if node.op_type == "Gather"]
        if isinstance(value.const_value, ir.ExternalTensor) and 0 < len(gathers) < len(value.consumers()):
            rows = ir.Value(name=f"{name}.rows", type=value.type, shape=value.shape, const_value=value.const_value)
            model.graph.initializers[f"{name}.rows"] = rows
            for node in gathers:
                node.replace_input_with(list(node.inputs).index(value), rows)


def _strip(model: ir.Model) -> None:
    """Drop what no runtime reads: module stacks, tracebacks, value types."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    kept = {*model.graph.inputs, *model.graph.outputs}
    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            if node.op_type == "SkipSimplifiedLayerNormalization" and not value.uses() and value not in kept:
                value.name = ""  # optional, and not asked for
            if value not in kept:
                value.type = value.shape = None
    for value in (*kept, *model.graph.initializers.values()):
        value.metadata_props.clear()


def _tensor(value: ir.Value, slots: int) -> Tensor:
    assert value.name is not None and value.dtype is not None and value.shape is not None
    return Tensor(value.name, value.dtype.name.lower(), tuple(d if isinstance(d, int) else slots for d in value.shape))
