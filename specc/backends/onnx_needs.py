"""What an ONNX engine needs of the machine that loads it: the least version of ONNX Runtime, by operator.

The versions were found by loading engines of 48 families, and by replaying golden outputs, with ONNX Runtime 1.20.1,
1.21.1, 1.22.1, 1.23.2, 1.24.1, 1.25.0, 1.26.0 and 1.32.0, on 2026-11-26. docs/backends.md has the table.
"""

from __future__ import annotations

import onnx_ir as ir

from specc.backends.lowering import onnx_kernels

RUNTIME = "onnxruntime"
OLDEST = "1.20"  # reads opset 18 in IR 9
STANDARD_OPSETS = {18: OLDEST, 24: "1.25"}
# Inputs of GroupQueryAttention by their positions: a tree's bias and positions, and the sinks of heads.
BIAS_AND_POSITIONS, SINKS = (9, 10), 11


def needs(model: ir.Model) -> dict[str, str]:
    """Return what the manifest says under `needs`.

    Args:
        model: a translated block.

    Returns:
        The least version of ONNX Runtime under `onnxruntime`. For each operator outside the ONNX standard, as
        `domain::Name`, the least version of the library that has it: ONNX Runtime, or specc-kernels.
    """
    least = {RUNTIME: STANDARD_OPSETS[model.opset_imports[""]]}
    for node in model.graph:
        if node.domain == "com.microsoft":
            name, version = f"{node.domain}::{node.op_type}", _since(node)
            least[name] = _newer(least.get(name, OLDEST), version)
            least[RUNTIME] = _newer(least[RUNTIME], version)
        elif node.domain == onnx_kernels.DOMAIN:
            name, version = f"{node.domain}::{node.op_type}", onnx_kernels.since(node)
            least[name] = _newer(least.get(name, version), version)
    return {name: least[name] for name in sorted(least)}


def _since(node: ir.Node) -> str:
    """Return the least version of ONNX Runtime that runs a node."""
    if node.op_type == "MatMulNBits" and node.attributes.get_int("bits", 4) == 8:
        return "1.22"
    if node.op_type != "GroupQueryAttention":
        return OLDEST
    inputs = dict(enumerate(node.inputs))
    if node.attributes.get_int("kv_num_heads", 0) == 1 and _has_open_shape(inputs.get(1)):
        return "1.31"  # Up to 1.26 at least, the shape of the output is inferred wrongly, and the graph refused.
    if inputs.get(SINKS) is not None:
        return "1.23"
    return "1.22" if any(inputs.get(position) is not None for position in BIAS_AND_POSITIONS) else OLDEST


def _has_open_shape(value: ir.Value | None) -> bool:
    """Tell whether a value is reshaped to a shape that the graph computes."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Reshape" or node.inputs[1] is None:
        return False
    maker = node.inputs[1].producer()
    return maker is not None and maker.op_type != "Constant"


def _newer(first: str, second: str) -> str:
    """Return the newer of two versions."""
    return max(first, second, key=lambda version: tuple(map(int, version.split("."))))
