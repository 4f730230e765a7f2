"""Backends: a prepared block to files, one module each, found by name when used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, cast

from torch.fx import GraphModule

from specc.runtime.block import Block
from specc.runtime.errors import BackendError
from specc.runtime.manifest import Tensor

# a module, or module:object
BACKENDS = {
    "onnx": "onnx", "inductor": "inductor:CPU", "inductor-cuda": "inductor:CUDA",
    "tensorrt": "tensorrt:TENSORRT", "tensorrt-rtx": "tensorrt:RTX", "torch-tensorrt": "torch_tensorrt",
}  # fmt: skip

LOWERINGS = ("fast", "portable")


@dataclass(frozen=True)
class Built:
    """An engine's file: inputs and outputs as it names and types them.

    needs: what must be here to load it, such as the version of a library. commit: the file that keeps its rows.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    needs: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""


@dataclass(frozen=True)
class Options:
    """What a user may ask of a backend.

    lowering: one of LOWERINGS; None leaves it to the backend.
    compute_capability: of the GPU to build for, "8.9"; None is the one that is here.
    weights_inside: each engine holds a copy of its weights instead of taking them as inputs.
    """

    lowering: str | None = None
    compute_capability: str | None = None
    weights_inside: bool = False

    def __post_init__(self) -> None:
        if self.lowering not in (None, *LOWERINGS):
            raise BackendError(f"unknown lowering {self.lowering!r}; there are {', '.join(LOWERINGS)}")


DEFAULT = Options()


class Backend(Protocol):
    """What a backend's module has.

    suffix: of its files. types: of weights that it builds, the first unless a user asks for another. One that can
    build several engines at once, since it times none, has `together = True`. One that makes a single file of blocks
    which differ in width alone has `any_width(graph, block, options) -> bool`: whether it does of this one.
    """

    suffix: str
    types: tuple[str, ...]

    def build(
        self, graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
    ) -> Built:
        """Write `file` for a graph that `pipeline(block)` made. `weights` is in the block's type.

        Tensors that `weights` holds under `prefix` and their name are referred to, not written again.
        """

    def requirements(self) -> list[str]:
        """What this machine lacks to build with it, each with its remedy."""


def check(names: Sequence[str], dtype: str | None = None) -> None:
    """Raises BackendError for a backend that is unknown or lacks something here, or that has no such type."""
    for name in names:
        built = backend(name)
        if missing := built.requirements():
            raise BackendError(f"backend {name} cannot build here: {missing[0]}")
        if dtype is not None and dtype not in built.types:
            raise BackendError(f"backend {name} has no {dtype}; it has {', '.join(built.types)}")


def typed(block: Block, name: str, all_names: Sequence[str], dtype: str | None, options: Options = DEFAULT) -> Block:
    """The block with weights of the type that a backend builds.

    Its own type where the backend has it; few bits have no standard operator, and no rows in half precision. A user's
    `dtype` instead of fp32, but not for what stays fp32 so that the CPU can run it beside engines for a GPU.
    """
    types, alone = backend(name).types, len(set(all_names)) == 1
    half = alone and dtype in ("fp16", "bf16")
    few = block.weights in ("int8", "int4") and (half or options.lowering == "portable")
    if block.weights != "fp32" and block.weights in types and not few:
        return block
    return replace(block, weights=dtype if dtype and (alone or types[0] != "fp32") else types[0])


def backend(name: str) -> Backend:
    if name not in BACKENDS:
        raise BackendError(f"no backend {name!r}; there are {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    found = importlib.import_module(f".{module}", __package__)
    return cast(Backend, getattr(found, attribute) if attribute else found)
