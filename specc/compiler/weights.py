"""The bundle's weights files: safetensors, each tensor once, however many engines and names refer to it.

A tensor that two models share, such as the table of embeddings that a trained head reads, is stored under its first
name. The file's metadata maps each further name to that one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.fx import GraphModule

from specc.huggingface.tied import first_names
from specc.passes.find import weight
from specc.runtime.errors import BundleError

HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
INLINE = 1024  # bytes; a smaller tensor stands in the engines themselves
# Bytes. Processors load 64 at once, and decoding with bf16 panels that begin elsewhere took a sixth longer.
ALIGNMENT = 64
# Names of types in the order in which safetensors writes them: tensors of one type stand together, by name.
TYPES = {
    torch.int64: "I64", torch.float32: "F32", torch.int32: "I32", torch.bfloat16: "BF16", torch.float16: "F16",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def prefix_of(model: str) -> str:
    """Return what a model's names begin with in the weights files, so that two models' names differ."""
    return "" if model == "target" else f"{model}."


def share_tied(graph: GraphModule) -> None:
    """Let all nodes that read one tensor read it under one name, the first."""
    first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    for node in graph.graph.find_nodes(op="get_attr"):
        tensor = weight(graph, node)
        node.target = first.setdefault((tensor.data_ptr(), tensor.shape, tensor.stride()), str(node.target))
    graph.recompile()


def collect(graph: GraphModule, prefix: str = "") -> dict[str, Tensor]:
    """Return the tensors that a graph reads and that are stored, by their names in the file. Tied ones are shared."""
    share_tied(graph)
    read = {str(node.target): weight(graph, node) for node in graph.graph.find_nodes(op="get_attr")}
    return {f"{prefix}{n}": t.detach().contiguous() for n, t in read.items() if t.nbytes >= INLINE}


def file_name(kind: str, model: str = "") -> str:
    """Return the file that holds weights of a type: one for each half type, and one for all others.

    Args:
        kind: the type.
        model: the model, if each model and type has a file of its own; empty if models share their files.
    """
    if model:
        return f"weights-{model}-{kind}.safetensors"
    return f"weights-{kind}.safetensors" if kind in HALF else "weights.safetensors"


def write_type(tensors: Mapping[str, Tensor], file: Path, kind: str) -> None:
    """Write the file of a type.

    Args:
        tensors: by name; float32 becomes the type of the file, packed weights stay as they are.
        file: the file.
        kind: the type of weights, see `specc.runtime.block.WEIGHTS`.

    Raises:
        BundleError: there is no room.
    """
    half = HALF.get(kind)
    names = {name: first for name, first in first_names(tensors).items() if name != first}
    stored = {name: tensor for name, tensor in tensors.items() if name not in names}
    write({n: t.to(half) if half and t.dtype == torch.float32 else t for n, t in stored.items()}, file, names)


def write(tensors: dict[str, Tensor], file: Path, names: Mapping[str, str] = MappingProxyType({})) -> None:
    """Write one file, whose data begin at a multiple of ALIGNMENT.

    Args:
        tensors: the tensors by name.
        file: the file.
        names: further names of tensors; for each the name under which the tensor is stored.

    Raises:
        BundleError: there is no room.
    """
    try:
        save_file(tensors, file, {"padding": _padding(tensors, names), **names})
    except SafetensorError as e:
        raise BundleError(f"cannot write {file}: {e}; free some space, or choose another output") from e


def _padding(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> str:
    """Return spaces that bring the header of a safetensors file to a multiple of ALIGNMENT, its length included.

    The format (github.com/huggingface/safetensors) is a length of 8 bytes, a header in JSON, and the data. With types
    that engines do not read, nothing is padded: the file is right all the same.
    """
    if any(tensor.dtype not in TYPES for tensor in tensors.values()):
        return ""
    ranks = {dtype: rank for rank, dtype in enumerate(TYPES)}
    header: dict[str, object] = {"__metadata__": {"padding": "", **names}}
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (ranks[item[1].dtype], item[0])):
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    return " " * (-(8 + len(text.encode())) % ALIGNMENT)
