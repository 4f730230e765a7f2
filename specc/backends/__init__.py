"""Backends: a prepared block to files, one module each, found by name when used."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol, cast

from torch.fx import GraphModule

from specc.runtime.block import Block
from specc.runtime.errors import BackendError
from specc.runtime.manifest import Tensor

BACKENDS = {"onnx": "onnx"}


class Backend(Protocol):
    """What a backend's module has."""

    def build(self, graph: GraphModule, block: Block, weights: Path, prefix: str, file: Path) -> Built:
        """Write `file` for a graph that `pipeline(block)` made.

        Tensors that `weights` holds under `prefix` and their name are referred to, not written again.
        """


Built = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # inputs and outputs as the file names and types them


def backend(name: str) -> Backend:
    if name not in BACKENDS:
        raise BackendError(f"no backend {name!r}; there are {', '.join(BACKENDS)}")
    return cast(Backend, importlib.import_module(f".{BACKENDS[name]}", __package__))
