"""Places of weights in an ONNX file; everything else passes through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specc.runtime.engines.onnx_file import OnnxFile

pytestmark = pytest.mark.torch


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with an external weight that two operators read, and one that is inside it."""
    import onnx
    from onnx import TensorProto, helper

    outside: Any = onnx.TensorProto(name="outside", data_type=TensorProto.FLOAT, dims=[4, 4])
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.safetensors"), ("offset", "64"), ("length", "64")):
        outside.external_data.add(key=key, value=value)
    inside = helper.make_tensor("inside", TensorProto.FLOAT, [1], [2.0])
    nodes = [
        helper.make_node("MatMul", ["x", "outside"], ["y"]),
        helper.make_node("Gather", ["outside", "i"], ["z"]),
        helper.make_node("Mul", ["y", "inside"], ["u"]),
    ]
    ports = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])]
    graph = helper.make_graph(nodes, "graph", ports, [], [outside, inside])
    onnx.save(helper.make_model(graph, producer_name="a test"), tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


def test_external_weights_are_found_with_the_operators_that_read_them(file: Path) -> None:
    model = OnnxFile(file)
    assert model.weights == {"outside": {"location": "w.safetensors", "offset": "64", "length": "64"}}
    assert model.users == {"outside": {"MatMul", "Gather"}}


def test_a_file_whose_weights_moved_is_the_same_but_for_their_places(file: Path) -> None:
    import onnx

    model, moved = OnnxFile(file), file.with_name("b.onnx")
    model.weights["outside"] = {"location": "other.bin", "offset": "0", "length": "64", "prepacked_0": "k|1;2;0"}
    model.save(moved)
    before, after = (onnx.load(f, load_external_data=False) for f in (file, moved))
    places = {e.key: e.value for e in after.graph.initializer[0].external_data}
    assert places == model.weights["outside"]
    for proto in (before, after):
        del proto.graph.initializer[0].external_data[:]
    assert before == after and before.producer_name == "a test"
