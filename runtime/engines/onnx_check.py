"""A check of an ONNX file before ONNX Runtime sees it: a stranger may have written anything into it.

What it refuses makes ONNX Runtime read outside of a file, crash, or run without end. Its own errors name the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import PurePosixPath
from typing import Any

from ..bundle import Bundle
from ..errors import BundleError, printable
from .onnx_file import parse

# By ONNX's number of a type (onnx.proto, TensorProto.DataType): half bytes of an element. Texts have no fixed size.
HALF_BYTES = {
    1: 8, 2: 2, 3: 2, 4: 4, 5: 4, 6: 8, 7: 16, 9: 2, 10: 4, 11: 16, 12: 8, 13: 16, 14: 16, 15: 32, 16: 4,
    17: 2, 18: 2, 19: 2, 20: 2, 21: 1, 22: 1, 23: 1,
}  # fmt: skip
IR_VERSIONS, OPSETS = range(3, 21), range(1, 101)
DEPTH = 4  # Of graphs in graphs, such as the branches of an If.
ENDLESS = ("Loop", "Scan")  # Operators that may run without end. No lowering of specc has them.
FOREIGN = ("EPContext",)  # An operator that holds, or names, a compiled program of another runtime.
EXTERNAL = {"location", "offset", "length", "checksum"}
LARGEST = 2**63 - 1


def check(bundle: Bundle, name: str) -> None:
    """Check a file of a bundle.

    Args:
        bundle: whose file.
        name: an ONNX file, in the manifest.

    Raises:
        BundleError: naming the first thing in it that an engine's file may not have.
    """
    try:
        model = parse(bundle.file(name).read_bytes())
        if model.ir_version not in IR_VERSIONS:
            raise ValueError(f"its IR version is {model.ir_version}")
        if wrong := [opset.version for opset in model.opset_import if opset.version not in OPSETS]:
            raise ValueError(f"its opset is {wrong[0]}")
        if model.functions:
            raise ValueError("it has functions of its own")
        for tensor in _tensors(model.graph, 0):
            _check_tensor(tensor, bundle, PurePosixPath(name).parent)
    except (ValueError, OSError) as e:
        raise BundleError(f"{bundle.file(name)}: {printable(str(e))}; compile the bundle again") from e


def _tensors(graph: Any, depth: int) -> Iterator[Any]:
    """Yield the tensors of a graph and of the graphs in it.

    Raises:
        ValueError: graphs are nested too deep, or have what no engine needs.
    """
    if depth > DEPTH:
        raise ValueError(f"graphs are nested more than {DEPTH} deep")
    if graph.sparse_initializer:
        raise ValueError("it has sparse weights")
    yield from graph.initializer
    for node in graph.node:
        if node.op_type in ENDLESS or node.op_type in FOREIGN:
            raise ValueError(f"it has the operator {node.op_type}")
        for attribute in node.attribute:
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise ValueError("it has sparse weights")
            yield from ([attribute.t] if attribute.HasField("t") else [])
            yield from attribute.tensors
            for inner in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
                yield from _tensors(inner, depth + 1)


def _check_tensor(tensor: Any, bundle: Bundle, folder: PurePosixPath) -> None:
    """Check the size of a tensor, and where it lies.

    Raises:
        ValueError: its size is not that of its data, or its data does not lie in a listed file.
    """
    if any(dimension < 0 for dimension in tensor.dims) or prod(tensor.dims) > LARGEST:
        raise ValueError(f"tensor {tensor.name!r} has the shape {list(tensor.dims)}")
    size = -(-prod(tensor.dims) * HALF_BYTES.get(tensor.data_type, 0) // 2)
    entries = [(entry.key, entry.value) for entry in tensor.external_data]
    if not entries:
        if tensor.data_location:
            raise ValueError(f"tensor {tensor.name!r} does not say in which file it lies")
        if tensor.HasField("raw_data") and len(tensor.raw_data) != size:
            raise ValueError(f"tensor {tensor.name!r} has {len(tensor.raw_data)} bytes of data instead of {size}")
        return
    place = dict(entries)
    if len(place) < len(entries) or not {"location", "length"} <= place.keys() <= EXTERNAL:
        raise ValueError(f"tensor {tensor.name!r} lies at {sorted(place)}")  # No bundle has copies packed for a kernel.
    if tensor.data_type not in HALF_BYTES:
        raise ValueError(f"tensor {tensor.name!r} has the unknown type {tensor.data_type}")
    file = str(folder / place["location"])
    offset, length = _number(place.get("offset", "0")), _number(place["length"])
    if length != size:
        raise ValueError(f"tensor {tensor.name!r} has {length} bytes of data instead of {size}")
    if file not in bundle.manifest.files:
        raise ValueError(f"tensor {tensor.name!r} lies in {file!r}, which the manifest does not list")
    if offset + length > bundle.manifest.files[file].bytes:
        raise ValueError(f"tensor {tensor.name!r} ends behind the end of {file!r}")


def _number(text: str) -> int:
    """Read an offset or a length, which ONNX writes as digits.

    Raises:
        ValueError: it is none, or too large.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise ValueError(f"{text[:40]!r} is not an offset or length")
    return int(text)
