"""Build blocks as ONNX files for ONNX Runtime. Weights stay in the bundle's one file, and engines refer to them."""

from __future__ import annotations

import ast
import operator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from torch.onnx._internal.exporter import _core
from torch.onnx._internal.exporter._registration import ONNXRegistry

from specc import passes
from specc.backends import DEFAULT, Backend, Built, Options
from specc.backends.commit_graph import commit, moves
from specc.backends.export import export, public, quiet
from specc.backends.lowering import (
    any_width,
    onnx_fast,
    onnx_group_query,
    onnx_kernel_layers,
    onnx_kernels,
    onnx_portable,
    onnx_quantized_rows,
    onnx_rows,
)
from specc.backends.lowering.half_precision import TYPES, Half
from specc.backends.onnx_needs import needs
from specc.passes.find import nodes
from specc.passes.find import outputs as graph_outputs
from specc.runtime.block import Block
from specc.runtime.engines.mapped_weights import read_header
from specc.runtime.errors import BackendError
from specc.runtime.manifest import EngineSpec, Tensor

# The oldest versions that have what a lowering uses: ONNX Runtime 1.20 reads opset 18 in IR 9.
OPSETS = {"fast": 18, "portable": 24, "kernels": 18}
IR_VERSIONS = {"fast": 9, "kernels": 9}
ROWS_OPSET = 24  # has TensorScatter, which blocks need that read rows in 4 bits
CAPACITY = "capacity"
INLINE = 1024  # bytes: a smaller tensor stands in the file
OPTIONAL_OUTPUTS = {  # Operators leave out these outputs if no node reads them.
    "SkipSimplifiedLayerNormalization": (1, 2, 3),
    "GatedMLP": (1,),
    "ProjectedAttention": (1,),
}
LARGEST_CONSTANT = 1 << 20  # bytes: the most that an engine may hold of its own, such as a tree's mask


@dataclass(frozen=True)
class Onnx(Backend):
    """A backend that writes ONNX: of opset 18 with contrib operators, or of opset 24 without them.

    The lowering "kernels" is the fast one with the operators of specc-kernels in the place of products and attention.
    """

    suffix: str = ".onnx"
    types: tuple[str, ...] = ("fp32", "fp16", "bf16", "int8", "int4")
    builds_in_parallel: bool = True
    has_lanes: bool = True
    has_heads: bool = True
    has_quantized_rows: bool = True

    def requirements(self) -> list[str]:
        """Return nothing: a machine that can capture a model has what this backend needs."""
        return []

    def check_block(self, block: Block, options: Options = DEFAULT) -> None:
        """Refuse a block whose weights have a type that the lowering has not, or has not beside rows in few bits."""
        _check_type(block, _lowering(block, options))

    def build(
        self, graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
    ) -> Built:
        """Write the engine; in the portable lowering also the graph that commits its rows, if they may be moved.

        Lanes have no such graph: the host moves their rows.

        Raises:
            BackendError: torch.onnx cannot translate the graph, or the lowering has no weights of the block's type.
        """
        lowering = _lowering(block, options)
        model = translate(graph, block, lowering)
        link_external_weights(model, weights, prefix, file)
        if lowering == "fast":
            split_gathered_weights(model)
        inputs, outputs = tensors(model, block.slots)
        if lowering != "portable":
            name_capacity(model)
        ir.save(model, file)
        if lowering != "portable" or block.lanes > 1 or not moves(block):
            return Built(inputs, outputs, needs=needs(model))
        commit_file = file.with_suffix(".commit.onnx")
        ir.save(commit(inputs, block.slots, from_rows=False), commit_file)
        return Built(inputs, outputs, needs(model), commit_file.name)

    def one_file_for_all_widths(self, graph: GraphModule, block: Block, options: Options = DEFAULT) -> bool:
        """Tell whether one file runs this block and all blocks that differ from it in width alone."""
        return _lowering(block, options) != "portable" and _fits_any_width(graph, block)

    def engine_at(self, spec: EngineSpec, name: str, block: Block) -> EngineSpec:
        """Return the engine that runs the file of `spec` at the width of `block`, under its own name."""
        return any_width.engine_at(spec, name, block)


ONNX = Onnx()


def _lowering(block: Block, options: Options) -> str:
    """Choose the lowering: the user's, or the fast one, which has no half precision."""
    return options.lowering or ("portable" if block.weights in ("fp16", "bf16") else "fast")


def _fits_any_width(graph: GraphModule, block: Block) -> bool:
    """Tell whether the fast lowering of a block can leave the number of slots open.

    torch.onnx must have a translation for every operator: those without one are decomposed, at one size.
    """
    is_registered = _translations(OPSETS["fast"]).is_registered
    called: set[Any] = {node.target for node in nodes(graph) if node.op == "call_function"}
    translated_here = {t for t in called if getattr(t, "namespace", "") == "specc" or t is operator.getitem}
    return any_width.possible(graph, block) and all(is_registered(t) for t in called - translated_here)


def translate(graph: GraphModule, block: Block, lowering: str, rows: bool = False) -> ir.Model:
    """Translate a block to ONNX, with the weights inside.

    Args:
        graph: The graph that `pipeline(block)` made. It is edited.
        block: What the graph computes.
        lowering: One of `specc.backends.LOWERINGS`.
        rows: Return the slots' rows too; in the portable lowering only.

    Raises:
        BackendError: The lowering has no weights of the block's type, or torch.onnx cannot translate the graph.
    """
    open_width = False
    _check_type(block, lowering)
    if lowering != "portable":
        open_width = _fits_any_width(graph, block)
        if open_width:
            block = any_width.traced_at(block)
        passes.run(_fast_passes(graph, block, open_width, lowering), graph)
    else:
        dtype = TYPES[block.weights]
        if dtype != torch.float32:
            passes.run([Half(dtype)], graph)
        rows_in_codes = onnx_quantized_rows.lowering(dtype)
        of_others = onnx_rows.RowsAttentions(slices=False, dtype=dtype)
        passes.run([*rows_in_codes, of_others, *onnx_portable.lowering(block.slots, dtype, rows)], graph)
    opset = ROWS_OPSET if block.quantized_group else OPSETS[lowering]
    model = _translated(export(graph, block), opset)
    rename_inputs_and_outputs(model, graph)
    if open_width:
        any_width.name_slots(model)
    if opset < ROWS_OPSET:
        model.ir_version = IR_VERSIONS.get(lowering, model.ir_version)
    if lowering == "portable":
        name_nodes_after_modules(model)
    drop_metadata(model)
    return model


def _check_type(block: Block, lowering: str) -> None:
    """Refuse weights of a type that the lowering has not.

    Raises:
        BackendError: The lowering has no weights of the block's type, or none beside rows in few bits.
    """
    if block.quantized_group and block.weights in ("fp16", "bf16"):
        raise BackendError(
            f"rows in {block.quantized_bits} bits stand beside weights in fp32, and not in {block.weights}; "
            "take --dtype fp32, or leave the recipe out"
        )
    if lowering == "portable":
        if block.weights not in TYPES:
            raise BackendError(f"the portable lowering has no {block.weights} weights; take {', '.join(TYPES)}")
        return
    types = ("fp32", "bf16", "int8", "int4") if lowering == "kernels" else ("fp32", "int8", "int4")
    if block.weights not in types:
        raise BackendError(f"the {lowering} lowering has no {block.weights}; take --lowering portable")


def _fast_passes(graph: GraphModule, block: Block, open_width: bool, lowering: str) -> list[passes.Pass]:
    """Return the passes of the fast lowering, or of that with the operators of specc-kernels.

    Attention comes first, and takes in the rotary embeddings it can.
    """
    slots = block.slots
    attention: passes.Pass = onnx_group_query.GroupQuery(slots, open_width)
    if block.lanes > 1:
        attention = onnx_group_query.GroupQueryLanes(slots)
    products: list[passes.Pass] = []
    if lowering == "kernels":
        products = [*onnx_kernel_layers.lowering(slots), *onnx_kernels.lowering(slots)]
        attention = onnx_kernels.TreeAttentions(slots) if onnx_kernels.attends(graph) else attention
    of_others = onnx_rows.RowsAttentions(slices=True)
    quantized = onnx_quantized_rows.lowering(slots=slots)
    steps = [*quantized, of_others, attention, *products, *onnx_fast.lowering(slots)]
    return [*steps, any_width.AnyWidth()] if open_width else steps


def tensors(model: ir.Model, slots: int = 0) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return a model's inputs and outputs, with `slots` in the place of an open number of slots."""
    graph = model.graph
    return tuple(_tensor(v, slots) for v in graph.inputs), tuple(_tensor(v, slots) for v in graph.outputs)


def _tensor(value: ir.Value, slots: int) -> Tensor:
    assert value.name is not None and value.dtype is not None and value.shape is not None
    sizes = tuple(size if isinstance(size, int) else slots for size in value.shape)
    return Tensor(value.name, value.dtype.numpy().name, sizes)


def _translated(program: ExportedProgram, opset: int) -> ir.Model:
    """Translate a program by torch.onnx: each operator as it stands, or decomposed if one has no translation.

    torch.onnx decomposes every program before it translates it, and has no option against that. Most operators here
    have a translation as they stand. So `run_decompositions` is replaced on this one program, which takes an engine
    from 4 s to 1 s (benchmarks/LOG.md). It is put back where the translation fails.

    Raises:
        BackendError: torch.onnx cannot translate the decomposed program either.
    """
    decompose = program.run_decompositions
    program.run_decompositions = lambda *_, **__: program
    with quiet():
        try:
            return _exported(program, opset).model
        except Exception:  # torch.onnx wraps whatever its translations raise
            program.run_decompositions = decompose
        try:
            return _exported(program, opset).model
        except Exception as e:
            raise BackendError(f"torch.onnx cannot translate the graph: {e.__cause__ or e}".splitlines()[0]) from e


def _exported(program: ExportedProgram, opset: int) -> torch.onnx.ONNXProgram:
    """Do what `torch.onnx.export` does, with a table of translations that is made once, not for each engine.

    The two private modules are those of torch 2.13, to which pyproject.toml pins torch.
    """
    return _core.export(program, registry=_translations(opset), optimize=False, verbose=False, opset_version=opset)


@cache
def _translations(opset: int) -> ONNXRegistry:
    with quiet():
        return ONNXRegistry.from_torchlib(opset)


def rename_inputs_and_outputs(model: ir.Model, graph: GraphModule) -> None:
    """Give inputs and outputs their public names: past_key_values.0.key, present.0.key."""
    for value in model.graph.inputs:
        assert value.name is not None
        value.name = public(value.name)
    outputs = model.graph.outputs
    for index, name in enumerate(graph_outputs(graph)):
        # Two heads that read one state name it twice, or an output is an input as it came. ONNX has one name.
        if outputs[index] in (*outputs[:index], *model.graph.inputs):
            outputs[index] = _copy(model.graph, outputs[index])
        outputs[index].name = name


def _copy(graph: ir.Graph, value: ir.Value) -> ir.Value:
    """Append a node that copies a value, and return the copy."""
    node = ir.node("Identity", [value])
    graph.append(node)
    (copy,) = node.outputs
    copy.shape, copy.type = value.shape, value.type
    return copy


def name_capacity(model: ir.Model) -> None:
    """Give the rows of the caches a name in place of their number, so that a runtime may bind smaller caches.

    The manifest's capacity stays the largest number: windows and tables of positions were made for it.
    """
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.name is not None and value.shape is not None
        if value.name.startswith(("past_key_values.", "present.")) and value.name.endswith((".key", ".value")):
            value.shape = ir.Shape([*value.shape[:2], CAPACITY, *value.shape[3:]])


def name_nodes_after_modules(model: ir.Model) -> None:
    """Put the path of its module before each node's name: other parsers name the node in their errors."""
    for node in model.graph:
        scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
        if scopes[1:-1]:
            node.name = f"{scopes[-2]}/{node.name}"


def link_external_weights(model: ir.Model, weights: Path, prefix: str, file: Path) -> None:
    """Point the initializers that the weights file holds into that file.

    ONNX Runtime requires that the engine's file and the weights file lie in one directory.

    Raises:
        BackendError: A large initializer is not in the weights file.
    """
    header, start_of_data = read_header(weights)
    for name, value in model.graph.initializers.items():
        tensor: Any = value.const_value
        if tensor.nbytes < INLINE:
            continue
        stored = header.get(prefix + name)
        if stored is None and tensor.nbytes <= LARGEST_CONSTANT:  # a constant of a pass, such as a tree's mask
            continue
        if stored is None:
            raise BackendError(f"{name} of {tensor.nbytes} bytes is in no weights file")
        start, end = stored["data_offsets"]
        value.const_value = ir.ExternalTensor(
            weights.name,
            start_of_data + start,
            end - start,
            tensor.dtype,
            name=name,
            shape=tensor.shape,
            base_dir=file.parent,
        )


def split_gathered_weights(model: ir.Model) -> None:
    """Give a weight that is both gathered from and multiplied by two names, over the same bytes of the file.

    ONNX Runtime packs the weight of a product. With a name of its own, the unpacked copy of it can be freed, and of
    the gathered weight only the rows that are read take memory.
    """
    for name, value in list(model.graph.initializers.items()):
        gathers = [node for node in value.consumers() if node.op_type == "Gather"]
        if isinstance(value.const_value, ir.ExternalTensor) and 0 < len(gathers) < len(value.consumers()):
            rows = ir.Value(name=f"{name}.rows", type=value.type, shape=value.shape, const_value=value.const_value)
            model.graph.initializers[f"{name}.rows"] = rows
            for node in gathers:
                node.replace_input_with(list(node.inputs).index(value), rows)


def drop_metadata(model: ir.Model) -> None:
    """Drop what no runtime reads: module stacks, tracebacks, types of inner values, unused optional outputs."""
    model.metadata_props.clear()
    model.graph.metadata_props.clear()
    public_values = {*model.graph.inputs, *model.graph.outputs}
    for node in model.graph:
        node.metadata_props.clear()
        for index, value in enumerate(node.outputs):
            value.metadata_props.clear()
            is_unused = not value.uses() and value not in public_values
            if index in OPTIONAL_OUTPUTS.get(node.op_type, ()) and is_unused:
                value.name = ""  # an optional output without a name is not computed
            if value not in public_values:
                value.type = value.shape = None
    for value in (*public_values, *model.graph.initializers.values()):
        value.metadata_props.clear()
