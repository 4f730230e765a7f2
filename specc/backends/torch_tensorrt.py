"""Build blocks as TensorRT engines by torch-tensorrt, which translates the torch graph itself, without ONNX.

The result is a plain engine that TensorRT's own runtime drives. torch-tensorrt updates a cache in place for one row
only, so no engine writes one: it reads the cache and returns the slots' rows. A second engine, by TensorRT's own
parser, commits them into the cache after each run. So every kind of block can be served, at the price of a copy of the
cache a step inside the engine.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from specc import passes
from specc.backends import DEFAULT, Backend, Built, Options, tensorrt
from specc.backends.commit_graph import commit
from specc.backends.export import quiet, tensors, traced
from specc.backends.lowering import torch_aten
from specc.backends.lowering.half_precision import TYPES, Half
from specc.passes.find import new_input, nodes, weight
from specc.runtime.block import Block
from specc.runtime.engines.mapped_weights import read_header
from specc.runtime.errors import BackendError, first_line
from specc.runtime.extras import package

NAME = "torch-tensorrt"
# torch-tensorrt 2.13 gives their result the type int32, unless it is fp16 or fp32
PICKS = (torch.ops.aten.where.self, torch.ops.aten.where.ScalarOther)


@dataclass(frozen=True)
class TorchTensorRT(Backend):
    """A backend over torch-tensorrt, for the GPU of this machine."""

    suffix: str = ".ttrt"
    types: tuple[str, ...] = ("fp16", "bf16")

    def requirements(self) -> list[str]:
        """Return what is missing: torch-tensorrt with the TensorRT that it was made for, or a GPU."""
        try:
            library()
        except Exception as e:  # its import raises errors of many kinds, for example if torch has no CUDA
            if tensorrt.is_missing_package(e):
                return [f"{e.name} is not installed; pip install {package(NAME)}"]
            if isinstance(e, ModuleNotFoundError):  # Another version of TensorRT than the one it was made for.
                remedy = f"pip install {package(NAME)} in an environment of its own"
                return [f"torch_tensorrt does not import ({first_line(e)}); {remedy}"]
            remedy = f"pip install {package(NAME)} and a CUDA torch"
            return [f"torch_tensorrt does not import ({_first_cause(e)}); {remedy}"]
        return [] if tensorrt.gpu_capability() else [tensorrt.no_gpu("torch_tensorrt")]

    def check_block(self, block: Block, options: Options = DEFAULT) -> None:
        """Refuse a lowering of the user's. Raises BackendError."""
        if options.lowering == "fast":
            raise BackendError(f"backend {NAME} compiles torch's operators; leave out --lowering")

    def build(
        self, graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
    ) -> Built:
        """Write the engine, and beside it the one that commits its rows into the cache.

        Raises:
            BackendError: torch-tensorrt cannot build the graph, or would compute it wrongly, or the user asked for
                another lowering or another GPU.
        """
        self.check_block(block, options)
        torch_tensorrt = library()
        trt = importlib.import_module("tensorrt")  # torch_tensorrt puts the TensorRT that it uses under this name
        parser = tensorrt.TensorRT(name=NAME, module=trt.__name__, suffix=self.suffix, anywhere=False, types=self.types)
        commit_builder = tensorrt.EngineBuilder(parser, options.compute_capability)
        passes.run([Half(TYPES[block.weights]), *torch_aten.lowering(block.slots, in_place=False)], graph)
        names = {} if options.weights_inside else make_weights_inputs(graph, read_header(weights)[0], prefix)
        with quiet(logging.CRITICAL):
            program = traced(graph, block)
        _refuse_bf16_picks(program)
        inputs, outputs = tensors(graph, program, names)
        file.write_bytes(convert(torch_tensorrt, program, file.name))
        commit_file = file.with_suffix(f".commit{self.suffix}")
        commit_builder.write(commit(inputs, block.slots, from_rows=True), commit_file)
        return Built(inputs, outputs, commit_builder.needs, commit_file.name)


TORCH_TENSORRT = TorchTensorRT()


def library() -> Any:
    """Import torch_tensorrt, without what it prints then."""
    with quiet(logging.CRITICAL):
        return importlib.import_module("torch_tensorrt")


def _refuse_bf16_picks(program: ExportedProgram) -> None:
    """Refuse a program that torch-tensorrt would compute wrongly. Raises BackendError."""
    for node in program.graph.nodes:
        if node.target in PICKS and node.meta["val"].dtype == torch.bfloat16:
            raise BackendError(f"{NAME} makes integers of bf16 in {node.target}; take --dtype fp16")


def make_weights_inputs(graph: GraphModule, stored: Collection[str], prefix: str) -> dict[Node, str]:
    """Turn the weights that a weights file holds into inputs.

    Args:
        graph: The graph to edit.
        stored: The names in the weights file.
        prefix: What the names of this model's tensors begin with there.

    Returns:
        The weight's name for each new input.
    """
    inputs: dict[str, Node] = {}
    for node in nodes(graph):
        name = str(node.target)
        if node.op != "get_attr" or prefix + name not in stored:
            continue
        if name not in inputs:
            inputs[name] = new_input(graph, name.replace(".", "_"), weight(graph, node).detach())
        node.replace_all_uses_with(inputs[name])
        graph.graph.erase_node(node)
    graph.recompile()
    return {node: name for name, node in inputs.items()}


def convert(torch_tensorrt: Any, program: ExportedProgram, file: str) -> bytes:
    """Build a program by torch-tensorrt.

    Args:
        torch_tensorrt: The library.
        program: The program.
        file: The name of the engine's file, for errors.

    Returns:
        The serialised engine.

    Raises:
        BackendError: torch-tensorrt cannot build it; the message is in its own words.
    """
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    examples = [values[name] for name in program.graph_signature.user_inputs]
    inputs = [torch_tensorrt.Input(shape=tuple(value.shape), dtype=value.dtype) for value in examples]
    try:
        with quiet(logging.CRITICAL):
            engine: bytes = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
                program, arg_inputs=inputs, attn_bias_is_causal=False, require_full_compilation=True
            )
    except Exception as e:
        raise BackendError(
            f"{NAME} {torch_tensorrt.__version__} cannot build {file}: {_first_cause(e)}; take another --backend"
        ) from e
    return bytes(engine)


def _first_cause(error: BaseException) -> str:
    """Return what a chain of exceptions began with: the later ones repeat the whole graph."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
