"""Build blocks as AOTInductor packages: code that torch generates for a processor or GPU, without the weights."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.fx import GraphModule

from specc import passes
from specc.backends import DEFAULT, Backend, Built, Options
from specc.backends.export import quiet, tensors, traced
from specc.backends.lowering import torch_aten
from specc.backends.lowering.half_precision import TYPES, Half
from specc.runtime.block import Block
from specc.runtime.engines.inductor import machine
from specc.runtime.engines.mapped_weights import read_header
from specc.runtime.errors import BackendError, first_line

LARGEST_CONSTANT = 1 << 20  # bytes: the most that an engine may hold of its own, such as a tree's mask
NO_COMPILER = "no C++ compiler; install g++, or name one by CXX"
CONFIG: dict[str, Any] = {
    "aot_inductor.package_constants_in_so": False,  # all engines share one weights file
    "cpp.dynamic_threads": True,  # the runtime decides how many threads there are, not the compiler
}


@dataclass(frozen=True)
class Inductor(Backend):
    """A backend that compiles the graph for one kind of device, "cpu" or "cuda"."""

    device: str
    suffix: str
    types: tuple[str, ...]

    def requirements(self) -> list[str]:
        """Return what is missing: a C++ compiler, or the GPU to compile for."""
        from torch._inductor import config

        named = config.cpp.cxx if isinstance(config.cpp.cxx, tuple) else (config.cpp.cxx,)
        compilers = [name for name in (*named, "g++", "clang++") if name]
        missing = [] if any(shutil.which(name) for name in compilers) else [NO_COMPILER]
        if self.device != "cpu" and not torch.cuda.is_available():
            missing.append(f"torch {torch.__version__} sees no CUDA GPU; build on a machine that has one")
        return missing

    def check_block(self, block: Block, options: Options = DEFAULT) -> None:
        """Refuse a lowering of the user's. Raises BackendError."""
        if options.lowering == "fast":
            raise BackendError("backend inductor compiles torch's operators; leave out --lowering")

    def build(
        self, graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
    ) -> Built:
        """Write the package, and beside it a file with its own constants, such as a tree's mask.

        Caches are inputs that the package writes into; it has no outputs for them.

        Raises:
            BackendError: Inductor cannot compile the graph, or the user asked for another lowering.
        """
        self.check_block(block, options)
        dtype = TYPES[block.weights]
        if dtype != torch.float32:
            passes.run([Half(dtype)], graph)
        passes.run(torch_aten.lowering(block.slots), graph)
        program = traced(graph, block)
        own = _own_constants(program, weights, prefix)
        try:
            with quiet():
                on_its_device = on_device(program, self.device)
                torch._inductor.aoti_compile_and_package(on_its_device, package_path=str(file), inductor_configs=CONFIG)
        except Exception as e:
            raise BackendError(f"inductor cannot compile {file.name}: {first_line(e)}") from e
        save_file(own, file.with_name(f"{file.name}.safetensors"))
        needs = {"torch": str(torch.__version__), **machine(torch, self.device)}
        inputs, outputs = tensors(graph, program)
        return Built(inputs, outputs, needs)


def _own_constants(program: ExportedProgram, weights: Path, prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a program that the weights file does not hold.

    Raises:
        BackendError: One of them is so large that it must be a weight.
    """
    stored, _ = read_header(weights)
    constants = {**program.state_dict, **program.constants}
    own = {name: t.detach().clone() for name, t in constants.items() if prefix + name not in stored}
    for name, tensor in own.items():
        if tensor.nbytes > LARGEST_CONSTANT:
            raise BackendError(f"{name} of {tensor.nbytes} bytes is in no weights file")
    return own


def on_device(program: ExportedProgram, device: str) -> ExportedProgram:
    """Return the program with its weights, constants and values on a device."""
    return program if device == "cpu" else move_to_device_pass(program, device)


CPU = Inductor(device="cpu", suffix=".pt2", types=("fp32", "fp16", "bf16"))
CUDA = Inductor(device="cuda", suffix=".cuda.pt2", types=("fp16", "bf16", "fp32"))
