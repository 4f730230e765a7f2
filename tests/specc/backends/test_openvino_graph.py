"""The graph of an engine, rewritten as a decoder with a state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from specc.backends.openvino_graph import adapt
from specc.runtime.errors import BackendError

pytestmark = pytest.mark.torch
FROZEN = Path(__file__).parents[2] / "bundles" / "schema-3"


def attention(model: ir.Model) -> ir.Node:
    return next(node for node in model.graph if node.op_type == "GroupQueryAttention")


def test_positions_and_beams_are_inputs_and_no_contrib_attention_is_left() -> None:
    model = ir.load(FROZEN / "decode.onnx")
    adapt(model, ["0", "1", "2"])
    rows = [f"past_key_values.{layer}.{part}" for layer in range(3) for part in ("key", "value")]
    inputs = {value.name: value for value in model.graph.inputs}
    assert inputs.keys() == {"input_ids", "attention_mask", "position_ids", "beam_idx", *rows}
    assert all(inputs[row].shape == ["batch", 2, None, 16] for row in rows)
    kinds = [node.op_type for node in model.graph]
    assert (kinds.count("StatefulAttention"), kinds.count("GroupQueryAttention"), kinds.count("Range")) == (3, 0, 0)
    rotations = [node for node in model.graph if node.op_type == "RotaryEmbedding"]
    assert rotations and all(node.inputs[1] is inputs["position_ids"] for node in rotations)


def window(model: ir.Model) -> None:
    attention(model).attributes["local_window_size"] = ir.AttrInt64("local_window_size", 8)


def cap(model: ir.Model) -> None:
    attention(model).attributes["softcap"] = ir.AttrFloat32("softcap", 30.0)


def bias(model: ir.Model) -> None:
    node = attention(model)
    node.resize_inputs(11)
    node.replace_input_with(10, node.inputs[3])


def absence(model: ir.Model) -> None:
    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            node.op_type = "Attention"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (window, "a window of rows, which is not written for OpenVINO; run specc export --to onnxruntime-genai"),
        (cap, "a soft cap, which is not written for OpenVINO; run specc export --to onnxruntime-genai"),
        (bias, "sinks, a bias or rows of few bits; run specc export --to onnxruntime-genai"),
        (absence, "it has no GroupQueryAttention; compile the model with --lowering fast"),
    ],
)
def test_attention_that_it_cannot_write_is_refused(change: Callable[[ir.Model], None], message: str) -> None:
    model = ir.load(FROZEN / "decode.onnx")
    change(model)
    with pytest.raises(BackendError, match=message):
        adapt(model, ["0", "1", "2"])
