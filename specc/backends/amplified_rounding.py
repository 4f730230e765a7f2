"""Tell from an engine's graph whether rounding to 8 bits can amplify a last bit that depends on the width.

A sum over fp32 numbers that is split otherwise at another width differs in its last bit. Where the result is rounded
to 8 bits, that bit flips a rounding now and then, and logits differ by 0.01 and more. That is rare: a text of 64 tokens
may show no such token, and the next one does. So the graph is asked, and not a text. Sums of whole numbers are exact in
any order: the mask of a tree that is an input comes from products of zeros and ones.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from specc.backends.lowering.onnx_kernels import DOMAIN
from specc.runtime.manifest import Manifest

# Operators of ONNX Runtime whose sums are split otherwise at another number of rows. Those of specc-kernels are not.
WIDTH_DEPENDENT = frozenset(
    ("Attention", "FusedMatMul", "Gemm", "GroupQueryAttention", "MatMul", "MatMulNBits", "MultiHeadAttention")
)
PRODUCTS = frozenset(("FusedMatMul", "Gemm", "MatMul"))
# Inputs that are the scales of weights of few bits, by operator of specc-kernels: kernels/README.md has the order.
SCALES = {"LinearNBits": (2,), "GatedMLP": (4, 9, 14), "ProjectedAttention": (4, 9)}
# Operators whose outputs are whole numbers if all their inputs are, and those whose outputs are truth values.
KEEP_WHOLE = frozenset(("Add", "Cast", "CastLike", "MatMul", "Max", "Min", "Mul", "ReduceSum", "Sub", "Unsqueeze"))
TRUTH = frozenset(("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "Or"))
CHECKED_TYPES = frozenset((ir.DataType.BOOL, ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64))
MOST_CHECKED = 1 << 16  # numbers of a constant that are looked at; the mask of 256 slots has as many
INT8 = 4  # MatMulNBits rounds activations to 8 bits if its attribute accuracy_level has this value.


def target_amplifies_rounding(manifest: Manifest, directory: Path) -> bool:
    """Tell whether an engine of the target rounds activations to 8 bits that depend on the width of a step.

    Args:
        manifest: of a bundle.
        directory: the bundle. Of engines that are not ONNX, only a measurement can tell.
    """
    names = {"prefill", "decode", *(name for recipe in manifest.recipes for name in recipe.verify)}
    files = {engine.file for engine in manifest.engines if engine.name in names and engine.file.endswith(".onnx")}
    return any(graph_amplifies_rounding(ir.load(directory / file).graph) for file in sorted(files))


def graph_amplifies_rounding(graph: ir.Graph) -> bool:
    """Tell whether a node of a graph that rounds its input to 8 bits comes behind one that depends on the width."""
    dependent: set[ir.Value] = set()
    whole: set[ir.Value] = set()
    for node in graph:  # in an order in which each node comes behind those that it reads
        reads_dependent = any(value in dependent for value in node.inputs if value is not None)
        if reads_dependent and _rounds_activations(node):
            return True
        if not reads_dependent and _gives_whole_numbers(node, whole):
            whole.update(node.outputs)
        elif reads_dependent or _depends_on_width(node):
            dependent.update(node.outputs)
    return False


def _gives_whole_numbers(node: ir.Node, whole: set[ir.Value]) -> bool:
    """Tell whether a node's outputs are whole numbers, given the values that are known to be.

    Sums of as many as a graph has slots stay far below 2^24, up to which fp32 holds every whole number.
    """
    if node.domain:
        return False
    inputs = node.inputs[:1] if node.op_type == "CastLike" else node.inputs  # Its second input says the type alone.
    return node.op_type in TRUTH or (
        node.op_type in KEEP_WHOLE and all(value in whole or _is_whole(value) for value in inputs if value is not None)
    )


def _is_whole(value: ir.Value) -> bool:
    """Tell whether a value is a small constant of whole numbers."""
    constant = ir.convenience.get_const_tensor(value)
    if constant is None or constant.size > MOST_CHECKED or constant.dtype not in CHECKED_TYPES:
        return False
    numbers = constant.numpy()
    return bool((np.isfinite(numbers) & (numbers == np.rint(numbers))).all())


def _depends_on_width(node: ir.Node) -> bool:
    """Tell whether a node's last bits depend on how many rows it computes. A product over one number has no sum."""
    if node.domain == DOMAIN or node.op_type not in WIDTH_DEPENDENT:
        return False
    second = node.inputs[1]
    shape = None if second is None else second.shape
    axis = -1 if node.attributes.get_int("transB", 0) else -2  # A product sums over this axis of its second matrix.
    return not (node.op_type in PRODUCTS and shape is not None and len(shape) > 1 and shape[axis] == 1)


def _rounds_activations(node: ir.Node) -> bool:
    if node.domain == DOMAIN:
        inputs = dict(enumerate(node.inputs))
        return any(inputs.get(position) is not None for position in SCALES.get(node.op_type, ()))
    return node.op_type == "MatMulNBits" and node.attributes.get_int("accuracy_level", 0) == INT8
