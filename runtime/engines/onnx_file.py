"""The fields of an ONNX file that say where its weights lie. All other fields pass through untouched.

Field numbers are those of onnx.proto (github.com/onnx/onnx). They are read by protobuf, which ONNX Runtime brings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# Where a weight lies: location (a file name), offset, length, and ONNX Runtime's entries prepacked_N.
Location = dict[str, str]

# By message: name, field number, the message that the field holds (or a string), whether it is repeated.
FIELDS = {
    "Model": [("graph", 7, "Graph", False)],
    "Graph": [("node", 1, "Node", True), ("initializer", 5, "Tensor", True)],
    "Node": [("input", 1, "", True), ("op_type", 4, "", False)],
    "Tensor": [("name", 8, "", False), ("external_data", 13, "Entry", True)],
    "Entry": [("key", 1, "", False), ("value", 2, "", False)],
}


def _model_class() -> Any:
    """Make the class of a message that knows the fields above, and keeps those that it does not know."""
    file = descriptor_pb2.FileDescriptorProto(name="specc_onnx_file.proto", package="specc_onnx", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, fields in FIELDS.items():
        descriptor = file.message_type.add(name=message)
        for name, number, content, repeated in fields:
            descriptor.field.add(
                name=name,
                number=number,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
                type=kinds.TYPE_MESSAGE if content else kinds.TYPE_STRING,
                type_name=f".specc_onnx.{content}" if content else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("specc_onnx.Model"))


_Model = _model_class()


class OnnxFile:
    """An ONNX file whose weights can be sent to other places.

    Attributes:
        weights: where each external tensor lies, by name. Change it and `save`.
        users: the operators that each external tensor feeds, by name.
    """

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
        """Write the file, with its weights where `weights` says."""
        for tensor in self._model.graph.initializer:
            if tensor.name in self.weights:
                del tensor.external_data[:]
                for key, value in self.weights[tensor.name].items():
                    tensor.external_data.add(key=key, value=value)
        file.write_bytes(self._model.SerializeToString())
