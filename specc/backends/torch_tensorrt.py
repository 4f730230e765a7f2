"""Blocks as TensorRT engines by torch-tensorrt, which translates the torch graph itself, without ONNX.

What comes out is a plain engine that TensorRT's own runtime drives. torch-tensorrt updates a cache in place for one row
only, so no engine writes one: it reads the cache, returns the slots' rows, and an engine of TensorRT's own parser, the
one that keeps accepted rows, puts them there after each run. So every kind of block can be served, at the price of a
copy of the cache a step inside the engine.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule, Node

from specc import passes
from specc.backends import DEFAULT, Built, Options, tensorrt
from specc.backends.commit_graph import commit
from specc.backends.export import quiet, read_header, tensors, traced
from specc.backends.lowering import torch_aten
from specc.backends.lowering.half_precision import TYPES, Half
from specc.passes.find import new_input, weight
from specc.runtime.block import Block
from specc.runtime.errors import BackendError, first_line

NAME = "torch-tensorrt"
suffix = ".ttrt"
types = ("fp16", "bf16")
PICKS = (torch.ops.aten.where.self, torch.ops.aten.where.ScalarOther)  # int32 of all that is neither fp16 nor fp32


def requirements() -> list[str]:
    """torch-tensorrt, for the TensorRT that it was made for, and a GPU."""
    try:
        library()
    except ModuleNotFoundError as e:
        return [f"{e.name} is not installed; pip install specc[{NAME}]"]
    except Exception as e:  # it raises what it likes, also where torch has no CUDA
        return [f"torch_tensorrt does not import ({_line(e)}); pip install specc[{NAME}], with a torch for CUDA"]
    if tensorrt.here():
        return []
    return ["torch_tensorrt builds on the GPU that it builds for, and here is none; take --backend tensorrt-rtx"]


def library() -> Any:
    """torch_tensorrt; what it prints when it is imported is not ours to say."""
    with quiet(logging.CRITICAL):
        return importlib.import_module("torch_tensorrt")


def build(
    graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
) -> Built:
    """Write the engine, and beside it the one that puts its rows into the cache. Raises BackendError."""
    if options.lowering == "fast":
        raise BackendError(f"backend {NAME} compiles torch's operators; leave out --lowering")
    torch_tensorrt = library()
    trt = importlib.import_module("tensorrt")  # which torch_tensorrt makes the one that it uses
    maker = tensorrt.TensorRT(NAME, trt.__name__, suffix, anywhere=False, types=types)
    kit = tensorrt.Kit(maker, options.compute_capability)
    passes.run([Half(TYPES[block.weights]), *torch_aten.lowering(block.slots, in_place=False)], graph)
    names = {} if options.weights_inside else take_in(graph, read_header(weights)[0], prefix)
    with quiet(logging.CRITICAL):
        program = traced(graph, block)
    if picks := [n for n in program.graph.nodes if n.target in PICKS and n.meta["val"].dtype == torch.bfloat16]:
        raise BackendError(f"{NAME} makes integers of bf16 in {picks[0].target}; take --dtype fp16")
    inputs, given = tensors(graph, program, names)
    file.write_bytes(convert(torch_tensorrt, program, file.name))
    commit_file = file.with_suffix(f".commit{suffix}")
    kit.write(commit(inputs, block.slots, from_rows=True), commit_file)
    return Built(inputs, given, kit.needs, commit_file.name)


def take_in(graph: GraphModule, held: Collection[str], prefix: str) -> dict[Node, str]:
    """Make inputs of the weights that a weights file holds; return the weight's name of each."""
    taken: dict[str, Node] = {}
    for node in [n for n in graph.graph.nodes if n.op == "get_attr" and prefix + n.target in held]:
        if node.target not in taken:
            taken[node.target] = new_input(graph, node.target.replace(".", "_"), weight(graph, node).detach())
        node.replace_all_uses_with(taken[node.target])
        graph.graph.erase_node(node)
    graph.recompile()
    return {node: name for name, node in taken.items()}


def convert(torch_tensorrt: Any, program: torch.export.ExportedProgram, file: str) -> bytes:
    """The serialised engine. Raises BackendError in torch-tensorrt's own words."""
    values = {n.name: n.meta["val"] for n in program.graph.nodes if n.op == "placeholder"}
    given = [values[name] for name in program.graph_signature.user_inputs]
    inputs = [torch_tensorrt.Input(shape=tuple(v.shape), dtype=v.dtype) for v in given]
    try:
        with quiet(logging.CRITICAL):
            made: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
                program, arg_inputs=inputs, attn_bias_is_causal=False, require_full_compilation=True
            )
    except Exception as e:
        raise BackendError(
            f"{NAME} {torch_tensorrt.__version__} cannot build {file}: {_line(e)}; take another --backend"
        ) from e
    return bytes(made)


def _line(error: BaseException) -> str:
    """What a chain of exceptions began with: those around it repeat the whole graph."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
