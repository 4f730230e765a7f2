"""Backends: each turns a prepared block into files. One module each, imported by name when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from torch.fx import GraphModule

from specc.runtime.block import HIDDEN, LOOP, Block
from specc.runtime.errors import BackendError
from specc.runtime.manifest import EngineSpec, Tensor
from specc.runtime.tree import Tree

# name -> module:object
BACKENDS = {
    "onnx": "onnx:ONNX",
    "inductor": "inductor:CPU",
    "inductor-cuda": "inductor:CUDA",
    "tensorrt": "tensorrt:TENSORRT",
    "tensorrt-rtx": "tensorrt:RTX",
    "torch-tensorrt": "torch_tensorrt:TORCH_TENSORRT",
}

LOWERINGS = ("fast", "portable", "kernels")


@dataclass(frozen=True)
class Built:
    """An engine's file as the backend wrote it.

    Attributes:
        inputs: The inputs, as the file names and types them.
        outputs: The outputs, as the file names and types them.
        needs: What must be there to load the file, such as the version of a library, by name.
        commit: The name of the file that commits accepted rows, if the engine has one.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    needs: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""


@dataclass(frozen=True)
class Options:
    """A user's requests to a backend.

    Attributes:
        lowering: One of LOWERINGS. None leaves the choice to the backend.
        compute_capability: The GPU to build for, such as "8.9". None is the GPU of this machine.
        weights_inside: Give each engine a copy of its weights instead of taking them as inputs.
        split_weights: Write a weights file for each model and type of weights, for runtimes that load a file whole.
    """

    lowering: str | None = None
    compute_capability: str | None = None
    weights_inside: bool = False
    split_weights: bool = False

    def __post_init__(self) -> None:
        if self.lowering not in (None, *LOWERINGS):
            raise BackendError(f"unknown lowering {self.lowering!r}; there are {', '.join(LOWERINGS)}")


DEFAULT = Options()


class Backend(Protocol):
    """A way to build engines. Backends inherit from this class, so that its defaults apply.

    Attributes:
        suffix: The suffix of its engines' files.
        types: The types of weights that it builds. The first is taken unless a user asks for another.
        builds_in_parallel: Whether it may build several engines at once. One that times kernels may not.
        has_lanes: Whether it builds blocks that run several sequences in one call.
        has_heads: Whether it builds blocks of trained heads, states of the target, and blocks that start from states.
        has_quantized_rows: Whether it builds blocks that read rows in 4 bits.
    """

    suffix: str
    types: tuple[str, ...]
    builds_in_parallel: bool = False
    has_lanes: bool = False
    has_heads: bool = False
    has_quantized_rows: bool = False

    def build(
        self, graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path, options: Options = DEFAULT
    ) -> Built:
        """Write an engine.

        Args:
            graph: The graph that `pipeline(block)` made. It is edited.
            block: What the engine computes.
            weights: A safetensors file with weights of the block's type. Tensors that it holds under `prefix` and
                their name are referred to, not written again.
            prefix: What the names of this model's tensors begin with.
            file: The engine's file.
            options: A user's requests.

        Raises:
            BackendError: The backend cannot build the block, or not with these options.
        """
        ...

    def check_block(self, block: Block, options: Options = DEFAULT) -> None:
        """Refuse a block that the backend cannot build, as far as that is known without a model.

        Args:
            block: The block, with weights of the type that would be built.
            options: A user's requests.

        Raises:
            BackendError: It cannot.
        """
        return

    def requirements(self) -> list[str]:
        """Return what this machine lacks to build with the backend: one line each, with its remedy."""
        ...

    def one_file_for_all_widths(self, graph: GraphModule, block: Block, options: Options = DEFAULT) -> bool:
        """Tell whether one file runs this block and all blocks that differ from it in width alone."""
        return False

    def engine_at(self, spec: EngineSpec, name: str, block: Block) -> EngineSpec:
        """Return the engine that runs the file of `spec` at the width of `block`, under its own name.

        Raises:
            BackendError: The backend writes a file for each width.
        """
        raise BackendError(f"backend {spec.backend} writes a file for each width, so {name} needs a file of its own")


def check(names: Sequence[str], dtype: str | None = None, lanes: int = 1, *, heads: bool = False) -> None:
    """Refuse backends that cannot build here, before any work is done.

    Args:
        names: The backends.
        dtype: The type of weights that a user asked for.
        lanes: Sequences that one call shall run.
        heads: Whether there are trained heads.

    Raises:
        BackendError: A backend is unknown, lacks something here, or does not build that type, lanes or heads.
        RecipeError: The number of lanes is out of range.
    """
    for name in names:
        builder = backend(name)
        if lanes > 1 and not builder.has_lanes:
            raise BackendError(
                f"backend {name} builds no engines with lanes; leave out --lanes, or give --backend onnx"
            )
        if heads and not builder.has_heads:
            raise BackendError(f"backend {name} builds no trained heads; leave out --head, or give --backend onnx")
        if missing := builder.requirements():
            raise BackendError(f"backend {name} cannot build here: {missing[0]}")
        if dtype is not None and dtype not in builder.types:
            raise BackendError(f"backend {name} has no {dtype}; it has {', '.join(builder.types)}")
    Block(Tree.chain(1), lanes=lanes)  # refuses a number out of range


def check_blocks(
    names: Sequence[str], recipe: str, blocks: Sequence[Block], dtype: str | None = None, options: Options = DEFAULT
) -> None:
    """Refuse backends that cannot build the blocks of a recipe.

    Args:
        names: The backends.
        recipe: The name of the recipe.
        blocks: The blocks, with weights as the recipe has them.
        dtype: The type of weights that a user asked for.
        options: A user's requests.

    Raises:
        BackendError: a backend does not build one of them.
    """
    quantized = any(block.quantized_group for block in blocks)
    hidden = any(HIDDEN in block.inputs or LOOP in block.inputs for block in blocks)
    for name in names:
        refused = ""
        if quantized and not backend(name).has_quantized_rows:
            refused = "reads rows in 4 bits"
        elif hidden and not backend(name).has_heads:
            refused = "starts from hidden states"
        if refused:
            raise BackendError(
                f"recipe {recipe} {refused}, and backend {name} builds no such engines; "
                "leave the recipe out, or give --backend onnx"
            )
        for block in blocks:
            try:
                backend(name).check_block(typed(block, name, names, dtype, options), options)
            except BackendError as e:
                raise BackendError(f"recipe {recipe}: {e}") from e


def typed(block: Block, name: str, all_names: Sequence[str], dtype: str | None, options: Options = DEFAULT) -> Block:
    """Return the block with weights of a type that a backend builds.

    A block's own type stays where the backend has it, except fp32, which stands for "any". Weights of few bits do not
    stay in the portable lowering, which has no operator for them, nor beside rows in half precision.
    Otherwise it is the user's `dtype`, or the backend's first type. Beside engines of other backends, what a backend
    builds in fp32 by default stays fp32, so that the CPU can run it.

    Args:
        block: What is to be built.
        name: The backend.
        all_names: All backends of the bundle.
        dtype: The type of weights that a user asked for.
        options: A user's requests.
    """
    types = backend(name).types
    is_only_backend = len(set(all_names)) == 1
    half_rows = is_only_backend and dtype in ("fp16", "bf16") and options.lowering != "kernels"
    refused = block.weights in ("int8", "int4") and (half_rows or options.lowering == "portable")
    if block.weights != "fp32" and block.weights in types and not refused:
        return block
    takes_dtype = dtype is not None and (is_only_backend or types[0] != "fp32")
    return replace(block, weights=dtype if dtype and takes_dtype else types[0])


def backend(name: str) -> Backend:
    """Import a backend by its name.

    Raises:
        BackendError: There is no backend of that name.
    """
    if name not in BACKENDS:
        raise BackendError(f"no backend {name!r}; there are {', '.join(BACKENDS)}")
    module, _, attribute = BACKENDS[name].partition(":")
    builder: Backend = getattr(importlib.import_module(f".{module}", __package__), attribute)
    return builder
