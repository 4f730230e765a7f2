"""Blocks as AOTInductor packages: code that torch makes for this kind of processor or GPU, without the weights."""

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
from specc.backends import DEFAULT, Built, Options
from specc.backends.export import quiet, read_header, tensors, traced
from specc.backends.lowering import torch_aten
from specc.backends.lowering.half_precision import TYPES, Half
from specc.runtime.block import Block
from specc.runtime.engines.inductor import machine
from specc.runtime.errors import BackendError, first_line

LARGEST_CONSTANT = 1 << 20  # bytes: so much an engine may hold besides the model's weights
CONFIG: dict[str, Any] = {
    "aot_inductor.package_constants_in_so": False,  # all engines take one file's
    "cpp.dynamic_threads": True,  # as many as the runtime has, not as the compiler had
}


@dataclass(frozen=True)
class Inductor:
    device: str
    suffix: str
    types: tuple[str, ...]

    def requirements(self) -> list[str]:
        """A C++ compiler, and the GPU that is compiled for."""
        from torch._inductor import config

        wanted = [c for c in (config.cpp.cxx if isinstance(config.cpp.cxx, tuple) else [config.cpp.cxx]) if c]
        missing = [] if any(shutil.which(c) for c in (*wanted, "g++", "clang++")) else [NO_COMPILER]
        seen = self.device == "cpu" or torch.cuda.is_available()
        return missing if seen else [*missing, f"torch {torch.__version__} sees no CUDA GPU; build where there is one"]

    def build(
        self, graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
    ) -> Built:
        """Write `file`, and beside it what is in no weights file, such as a tree's mask. Raises BackendError.

        Caches are inputs that the package writes into; it has no outputs for them.
        """
        if options.lowering == "fast":
            raise BackendError("backend inductor compiles torch's operators; leave out --lowering")
        dtype = TYPES[block.weights]
        if dtype != torch.float32:
            passes.run([Half(dtype)], graph)
        passes.run(torch_aten.lowering(block.slots), graph)
        program = traced(graph, block)
        held, _ = read_header(weights)
        constants = {**program.state_dict, **program.constants}
        own = {n: t.detach().clone() for n, t in constants.items() if prefix + n not in held}
        if big := [n for n, t in own.items() if t.nbytes > LARGEST_CONSTANT]:
            raise BackendError(f"{big[0]} of {own[big[0]].nbytes} bytes is in no weights file")
        try:
            with quiet():
                placed = on_device(program, self.device)
                torch._inductor.aoti_compile_and_package(placed, package_path=str(file), inductor_configs=CONFIG)
        except Exception as e:
            raise BackendError(f"inductor cannot compile {file.name}: {first_line(e)}") from e
        save_file(own, file.with_name(f"{file.name}.safetensors"))
        needs = {"torch": str(torch.__version__), **machine(torch, self.device)}
        inputs, given = tensors(graph, program)
        return Built(inputs, given, needs)


def on_device(program: ExportedProgram, device: str) -> ExportedProgram:
    """The program with its weights, constants and values there."""
    return program if device == "cpu" else move_to_device_pass(program, device)


NO_COMPILER = "no C++ compiler; install g++, or name one by CXX"
CPU = Inductor("cpu", ".pt2", ("fp32", "fp16", "bf16"))
CUDA = Inductor("cuda", ".cuda.pt2", ("fp16", "bf16", "fp32"))
