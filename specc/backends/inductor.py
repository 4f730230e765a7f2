"""Blocks as AOTInductor packages: C++ that torch makes for this kind of processor, without the weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.fx import GraphModule

from specc import passes
from specc.passes.find import outputs
from specc.runtime.block import Block
from specc.runtime.errors import BackendError
from specc.runtime.manifest import Tensor

from . import DEFAULT, Built, Options, aten
from .export import examples, public, quiet, read_header
from .half import TYPES, Half

suffix = ".pt2"
types = ("fp32", "fp16", "bf16")
OWN = 1 << 20  # bytes: so much an engine may hold besides the model's weights
CONFIG = {
    "aot_inductor.package_constants_in_so": False,  # all engines map one file
    "cpp.dynamic_threads": True,  # as many as the runtime has, not as the compiler had
}


def requirements() -> list[str]:
    """A C++ compiler."""
    from torch._inductor import config

    wanted = [c for c in (config.cpp.cxx if isinstance(config.cpp.cxx, tuple) else [config.cpp.cxx]) if c]
    if any(shutil.which(c) for c in (*wanted, "g++", "clang++")):
        return []
    return ["no C++ compiler; install g++, or name one by CXX"]


def build(
    graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
) -> Built:
    """Write `file`, and beside it what is in no weights file, such as a tree's mask. Raises BackendError.

    Caches are inputs that the package writes into; it has no outputs for them.
    """
    if options.lowering == "fast":
        raise BackendError("backend inductor compiles torch's operators; leave out --lowering")
    dtype = TYPES[block.weights]
    if dtype != torch.float32:
        passes.run([Half(dtype)], graph)
    passes.run(aten.lowering(block.slots), graph)
    with quiet(), torch.no_grad():
        program = torch.export.export(graph, examples(graph, block), strict=False)
    held, _ = read_header(weights)
    constants = {**program.state_dict, **program.constants}
    own = {n: t.detach().clone() for n, t in constants.items() if prefix + n not in held}
    if big := [n for n, t in own.items() if t.nbytes > OWN]:
        raise BackendError(f"{big[0]} of {own[big[0]].nbytes} bytes is in no weights file")
    try:
        with quiet():
            torch._inductor.aoti_compile_and_package(program, package_path=str(file), inductor_configs=CONFIG)
    except Exception as e:
        raise BackendError(f"inductor cannot compile {file.name}: {_line(e)}") from e
    save_file(own, file.with_name(f"{file.name}.safetensors"))
    needs = {"torch": str(torch.__version__), "cpu": torch.backends.cpu.get_cpu_capability()}
    inputs, given = _tensors(graph, program)
    return Built(inputs, given, needs)


def _tensors(graph: GraphModule, program: Any) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Inputs and outputs as users know them."""
    given = [n for n in graph.graph.nodes if n.op == "placeholder"]
    nodes = {n.name: n.meta["val"] for n in program.graph.nodes if "val" in n.meta}
    values = [nodes[name] for name in program.graph_signature.user_inputs]
    inputs = tuple(_tensor(public(n.name), v) for n, v in zip(given, values, strict=True))
    values = [nodes[name] for name in program.graph_signature.user_outputs]
    return inputs, tuple(_tensor(name, v) for name, v in zip(outputs(graph), values, strict=True))


def _tensor(name: str, value: torch.Tensor) -> Tensor:
    kind = str(value.dtype).removeprefix("torch.")
    return Tensor(name, "float" if kind == "float32" else kind, tuple(int(d) for d in value.shape))


def _line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
