"""Rewrite an engine as a decoder with a state, in the form that OpenVINO's runtimes read.

OpenVINO 2026.4 reads `GroupQueryAttention` but cannot save it. So attention goes through a node of our own, and an
extension of OpenVINO's ONNX reader turns that node into operators which can be saved: products and sums for the rotary
embedding, `Concat` for caches that grow, and `ScaledDotProductAttention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from specc.backends.genai_graph import ATTENTION, MASK, take_mask
from specc.runtime.errors import BackendError, first_line

OPERATOR, DOMAIN = "StatefulAttention", "specc"
POSITIONS, BEAMS = "position_ids", "beam_idx"
PAST, COS, OTHERS = 3, 7, 9  # inputs of GroupQueryAttention: keys' rows, cosines, and what is not rewritten
REFUSALS = ("No conversion rule found", "Conversion is failed")
OTHER_RUNTIME = "run specc export --to onnxruntime-genai"


def adapt(model: ir.Model, layers: Sequence[str]) -> None:
    """Rewrite an engine of the fast lowering in place, for `to_openvino`.

    Its inputs become `input_ids`, `attention_mask` [batch, T], `position_ids` [batch, slots], `beam_idx` [batch] int32,
    and caches that hold only the rows in use. Its results are `logits` and the longer caches. The batch is open, since
    openvino-genai gives each token an entry of its own where it manages the caches.

    Args:
        model: an engine that runs a chain of any number of slots.
        layers: the names of the layers whose rows the engine has, in order.

    Raises:
        BackendError: the engine is of another lowering, or its attention has a window, a soft cap, or sinks.
    """
    graph = model.graph
    attentions = [node for node in graph if node.op_type == ATTENTION]
    if not attentions:
        raise BackendError(f"it has no {ATTENTION}; compile the model with --lowering fast")
    for node in attentions:
        _check(node)
    past = take_mask(model, layers, "OpenVINO")
    inputs = {value.name: value for value in graph.inputs}
    positions = ir.val(POSITIONS, ir.DataType.INT64, ir.Shape(["batch", "slots"]))
    beams = ir.val(BEAMS, ir.DataType.INT32, ir.Shape(["batch"]))
    graph.inputs.extend((positions, beams))
    _read_positions(graph, past, positions)
    for node in [node for node in graph if node.op_type == ATTENTION]:
        heads = [value for value in node.inputs[:PAST] if value is not None]  # one, if they are packed
        turn = [value for value in node.inputs[COS:OTHERS] if value is not None]
        values = [*node.inputs[PAST : PAST + 2], positions, beams, inputs[MASK], *heads, *turn]
        attributes = {**node.attributes, "packed": ir.AttrInt64("packed", int(len(heads) == 1))}
        new = ir.node(OPERATOR, values, attributes, domain=DOMAIN, num_outputs=3)
        graph.insert_before(node, new)
        for old, result in zip(node.outputs, new.outputs, strict=True):
            result.name, result.shape, result.type = old.name, old.shape, old.type
        ir.convenience.replace_all_uses_with(node.outputs, new.outputs, replace_graph_outputs=True)
        graph.remove(node, safe=True)
    _open_shapes([*graph.inputs, *graph.outputs])
    model.opset_imports[DOMAIN] = 1
    RemoveUnusedNodesPass()(model)


def _open_shapes(values: Sequence[ir.Value]) -> None:
    """Leave the batch open, and the number of rows in each cache."""
    for value in values:
        if value.shape is None:
            continue
        sizes: list[int | str | ir.SymbolicDim | None] = ["batch", *value.shape[1:]]
        if (value.name or "").startswith(("past_key_values.", "present.")):
            sizes[2] = None
        value.shape = ir.Shape(sizes)


def _check(node: ir.Node) -> None:
    """Check that an attention has only what `StatefulAttention` has, too.

    Raises:
        BackendError: it has a window, a soft cap, sinks, a bias or quantised rows.
    """
    attributes = node.attributes
    if "local_window_size" in attributes and attributes["local_window_size"].as_int() > 0:
        raise BackendError(f"its attention has a window of rows, which is not written for OpenVINO; {OTHER_RUNTIME}")
    if "softcap" in attributes and attributes["softcap"].as_float() > 0:
        raise BackendError(f"its attention has a soft cap, which is not written for OpenVINO; {OTHER_RUNTIME}")
    if any(value is not None for value in node.inputs[OTHERS:]):
        raise BackendError(f"its attention has sinks, a bias or rows of few bits; {OTHER_RUNTIME}")


def _read_positions(graph: ir.Graph, past: ir.Value, positions: ir.Value) -> None:
    """Read positions [1, slots] from the input where the engine computes them as past + 0, 1, …."""
    for node in graph:
        addends = [value.producer() for value in node.inputs if value is not None and value is not past]
        if node.op_type != "Add" or past not in node.inputs or [n.op_type for n in addends if n] != ["Range"]:
            continue
        for user in [use.node for use in node.outputs[0].uses()]:
            if user.op_type == "Unsqueeze":
                ir.convenience.replace_all_uses_with(user.outputs[0], positions)


def to_openvino(file: Path) -> Any:
    """Read an engine that `adapt` rewrote, and make its caches a state.

    Returns:
        An `openvino.Model` with `input_ids`, `attention_mask`, `position_ids` and `beam_idx`, and with `logits`.

    Raises:
        BackendError: OpenVINO cannot read the engine. The message says which operators it refuses.
    """
    import openvino
    from openvino import _offline_transformations as transformations
    from openvino.frontend.onnx import ConversionExtension

    extension = ConversionExtension(OPERATOR, DOMAIN, _attention)
    try:
        model = openvino.convert_model(str(file), extension=[extension])
    except Exception as e:  # OpenVINO raises several types, and RuntimeError is not the base of them all.
        raise BackendError(f"OpenVINO {openvino.__version__} cannot read it: {_refusal(e)}") from e
    pasts = [name for port in model.inputs for name in port.get_names() if name.startswith("past_key_values.")]
    pairs = {name: name.replace("past_key_values", "present") for name in pasts}
    transformations.apply_make_stateful_transformation(model, pairs)
    _start_empty(model)
    return model


def _refusal(error: Exception) -> str:
    """Return the line of a reader's report that names the operators, or else the first one."""
    lines = [line.strip(" -") for line in str(error).splitlines()]
    return next((line for line in lines if line.startswith(REFUSALS)), first_line(error))


def _start_empty(model: Any) -> None:
    """Let each cache begin with no rows."""
    from openvino import opset13 as op

    batch = op.gather(op.shape_of(model.input("input_ids")), [0], 0)
    for read in [node for node in model.get_ops() if node.get_type_name() == "ReadValue"]:
        sizes = [dimension.get_min_length() for dimension in read.get_output_partial_shape(0)][1:]
        zero = op.constant(0, dtype=read.get_output_element_type(0).to_dtype())
        shape = op.concat([batch, op.constant(sizes, dtype=np.int64)], 0)
        read.set_arguments([op.broadcast(zero, shape).output(0)])
    model.validate_nodes_and_infer_types()


def _attention(context: Any) -> list[Any]:
    """Build OpenVINO's operators for one `StatefulAttention`.

    Returns:
        The outputs: [batch, slots, heads * size], and the caches [batch, kv heads, T, size].
    """
    from openvino import opset13 as op

    heads, kv_heads = context.get_attribute("num_heads"), context.get_attribute("kv_num_heads")
    ports = [context.get_input(number) for number in range(context.get_input_size())]
    past_keys, past_values, positions, beams, mask, *rest = ports
    size = past_keys.get_partial_shape()[3].get_length()
    if context.get_attribute("packed"):
        parts = op.variadic_split(rest[0], 2, [heads * size, kv_heads * size, kv_heads * size]).outputs()
        turn = rest[1:]
    else:
        parts, turn = rest[:3], rest[3:]
    query, key, value = (
        op.transpose(op.reshape(part, [0, 0, count, size], True), [0, 2, 1, 3])
        for part, count in zip(parts, (heads, kv_heads, kv_heads), strict=True)
    )
    if turn:
        angles = [op.unsqueeze(op.gather(table, positions, 0), 1) for table in turn]
        interleaved = bool(context.get_attribute("rotary_interleaved", 0))
        query, key = (_rotate(x, angles, interleaved) for x in (query, key))
    keys, values = (
        op.concat([op.gather(past, beams, 0), new], 2) for past, new in ((past_keys, key), (past_values, value))
    )
    repeated = [_repeat(rows, heads, kv_heads, size) for rows in (keys, values)]
    scale = op.constant(context.get_attribute("scale"), dtype=query.get_output_element_type(0).to_dtype())
    out = op.scaled_dot_product_attention(query, *repeated, _visible(positions, mask), scale)
    flat = op.reshape(op.transpose(out, [0, 2, 1, 3]), [0, 0, heads * size], True)
    return [flat.output(0), keys.output(0), values.output(0)]


def _rotate(heads: Any, angles: Sequence[Any], interleaved: bool) -> Any:
    """Turn pairs of a head's sizes by a position's angles; sizes behind the pairs stay.

    Args:
        heads: [batch, heads, slots, size].
        angles: cosines and sines, [batch, 1, slots, pairs].
        interleaved: a pair is two neighbours, and not a size of the first half and one of the second.
    """
    from openvino import opset13 as op

    cos, sin = angles
    size = heads.get_output_partial_shape(0)[3].get_length()
    pairs = cos.get_output_partial_shape(0)[3].get_length()
    turned, still = heads, []
    if 2 * pairs < size:
        turned, *still = op.variadic_split(heads, 3, [2 * pairs, size - 2 * pairs]).outputs()
    if interleaved:
        split = op.split(op.reshape(turned, [0, 0, 0, pairs, 2], True), 4, 2).outputs()
        first, second = (op.squeeze(half, 4) for half in split)
    else:
        first, second = op.split(turned, 3, 2).outputs()
    both = [
        op.subtract(op.multiply(first, cos), op.multiply(second, sin)),
        op.add(op.multiply(second, cos), op.multiply(first, sin)),
    ]
    if interleaved:
        both = [op.reshape(op.concat([op.unsqueeze(half, 4) for half in both], 4), [0, 0, 0, 2 * pairs], True)]
    return op.concat([*both, *still], 3)


def _repeat(rows: Any, heads: int, kv_heads: int, size: int) -> Any:
    """Repeat each head of keys or values for the queries that share it, […, kv heads, T, size] to […, heads, T, size].

    The three operators are those which OpenVINO's plug-in for the CPU knows as a part of attention.
    """
    from openvino import opset13 as op

    if heads == kv_heads:
        return rows
    shape = op.constant([1, 1, heads // kv_heads, 1, 1], dtype=np.int64)
    several = op.broadcast(op.unsqueeze(rows, 2), shape, broadcast_spec="BIDIRECTIONAL")
    return op.reshape(several, [0, heads, -1, size], True)


def _visible(positions: Any, mask: Any) -> Any:
    """Return whether a slot sees a row, [batch, 1, slots, T]: one up to its own that `attention_mask` does not hide."""
    from openvino import opset13 as op

    total = op.squeeze(op.gather(op.shape_of(mask), [1], 0), 0)
    slots = op.squeeze(op.gather(op.shape_of(positions), [1], 0), 0)
    rows = op.range(op.constant(0, dtype=np.int64), total, op.constant(1, dtype=np.int64), "i64")
    own = op.range(total - slots, total, op.constant(1, dtype=np.int64), "i64")
    causal = op.less_equal(op.unsqueeze(rows, 0), op.unsqueeze(own, 1))
    return op.logical_and(op.unsqueeze(causal, [0, 1]), op.unsqueeze(op.convert(mask, "boolean"), [1, 2]))
