"""The graph of an engine, rewritten for onnxruntime-genai."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import onnx_ir as ir
import pytest

from specc.backends.genai_graph import adapt
from specc.runtime.errors import BackendError

pytestmark = pytest.mark.torch
FROZEN = Path(__file__).parents[2] / "bundles" / "schema-3"


def names(values: Iterable[ir.Value]) -> set[str]:
    return {value.name or "" for value in values}


def test_a_mask_takes_the_place_of_the_number_of_rows() -> None:
    model = ir.load(FROZEN / "decode.onnx")
    assert adapt(model, ["0", "1", "2"]) == (4, 2)
    inputs, outputs = names(model.graph.inputs), names(model.graph.outputs)
    rows = {f"{layer}.{part}" for layer in range(3) for part in ("key", "value")}
    assert inputs == {"input_ids", "attention_mask", *(f"past_key_values.{row}" for row in rows)}
    assert outputs == {"logits", *(f"present.{row}" for row in rows)}
    assert not any(node.op_type == "ArgMax" for node in model.graph)


def test_layers_are_counted_without_gaps() -> None:
    model = ir.load(FROZEN / "draft-layer-skip.onnx")
    adapt(model, ["0", "2"])
    assert "past_key_values.1.key" in names(model.graph.inputs) and "present.1.value" in names(model.graph.outputs)
    assert not any(".2." in name for name in names([*model.graph.inputs, *model.graph.outputs]))


def test_an_engine_of_a_fixed_number_of_slots_is_refused() -> None:
    model = ir.load(FROZEN / "verify-medusa.onnx")
    with pytest.raises(BackendError, match="its number of slots is fixed"):
        adapt(model, ["0", "1", "2"])


def test_layers_that_attend_in_several_ways_are_refused() -> None:
    model = ir.load(FROZEN / "decode.onnx")
    attention = next(node for node in model.graph if node.op_type == "GroupQueryAttention")
    attention.attributes["num_heads"] = ir.AttrInt64("num_heads", 8)
    with pytest.raises(BackendError, match="its layers differ in their heads of attention"):
        adapt(model, ["0", "1", "2"])
