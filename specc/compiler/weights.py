"""The bundle's one weights file: safetensors, each tensor once, whatever number of graphs and names use it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.fx import GraphModule

from specc.passes.find import weight
from specc.runtime.errors import BundleError

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
INLINE = 1024  # bytes: what is smaller stands in the graphs


def collect(graph: GraphModule, prefix: str = "") -> dict[str, Tensor]:
    """The tensors that a prepared graph reads, tied ones under one name; the graph is made to read that name.

    `prefix` keeps two models' names apart.
    """
    held: dict[str, Tensor] = {}
    first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    for node in graph.graph.nodes:
        if node.op != "get_attr":
            continue
        tensor = weight(graph, node)
        name = f"{prefix}{node.target}"
        key = tensor.data_ptr(), tensor.shape, tensor.stride()
        node.target = first.setdefault(key, str(node.target))
        if node.target == name.removeprefix(prefix):
            held[name] = tensor.detach().contiguous()
    graph.recompile()
    return {n: t for n, t in held.items() if t.nbytes >= INLINE}


def write_types(tensors: dict[str, Tensor], directory: Path, types: Iterable[str]) -> dict[str, str]:
    """Write a file for each half type asked for, and one for all others; return their names, by type."""
    files: dict[str, str] = {}
    for kind in dict.fromkeys(types):
        half = HALF.get(kind)
        files[kind] = f"weights-{kind}.safetensors" if half else "weights.safetensors"
        if not (directory / files[kind]).exists():
            cast = {n: t.to(half) if half and t.dtype == torch.float32 else t for n, t in tensors.items()}
            write(cast, directory / files[kind])
    return files


def write(tensors: dict[str, Tensor], file: Path) -> int:
    """Write the file; return its size in bytes. Raises BundleError where there is no room."""
    try:
        save_file(tensors, file)
    except SafetensorError as e:
        raise BundleError(f"cannot write {file}: {e}; free some space, or choose another output") from e
    return file.stat().st_size
