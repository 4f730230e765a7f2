"""The few fields of an ONNX file that say where its weights lie; all others pass through untouched.

Field numbers are those of onnx.proto (github.com/onnx/onnx). Reading them needs protobuf, which ONNX Runtime brings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Location = dict[str, str]  # location, offset, length, and prepacked_N as ONNX Runtime writes it

FIELDS = {
    "Model": [("graph", 7, "Graph", False)],
    "Graph": [("node", 1, "Node", True), ("initializer", 5, "Tensor", True)],
    "Node": [("input", 1, "", True), ("op_type", 4, "", False)],
    "Tensor": [("name", 8, "", False), ("external_data", 13, "Entry", True)],
    "Entry": [("key", 1, "", False), ("value", 2, "", False)],
}


def _model_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="specc_onnx_file.proto", package="specc_onnx", syntax="proto2")
    kind = descriptor_pb2.FieldDescriptorProto
    for message, fields in FIELDS.items():
        described = file.message_type.add(name=message)
        for name, number, of, repeated in fields:
            described.field.add(
                name=name, number=number,
                label=kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL,
                type=kind.TYPE_MESSAGE if of else kind.TYPE_STRING,
                type_name=f".specc_onnx.{of}" if of else None,
            )  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("specc_onnx.Model"))


_Model = _model_class()


class OnnxFile:
    """`weights` is where each external tensor lies, by name; change it and `save`. `users`: the operators it feeds."""

    def __init__(self, file: Path) -> None:
        self._model = _Model.FromString(file.read_bytes())
        self.weights: dict[str, Location] = {
            t.name: {e.key: e.value for e in t.external_data} for t in self._model.graph.initializer if t.external_data
        }

        self.users: dict[str, set[str]] = {name: set() for name in self.weights}
        for node in self._model.graph.node:
            for name in node.input:
                if name in self.users:
                    self.users[name].add(node.op_type)

    def save(self, file: Path) -> None:
        for tensor in self._model.graph.initializer:
            if tensor.name in self.weights:
                del tensor.external_data[:]
                for key, value in self.weights[tensor.name].items():
                    tensor.external_data.add(key=key, value=value)
        file.write_bytes(self._model.SerializeToString())
