"""The fields of an ONNX file that say where its weights lie, and those that are checked. All others pass untouched.

Field numbers are those of onnx.proto (github.com/onnx/onnx). They are read by protobuf, which ONNX Runtime brings.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ..errors import first_line

# Where a weight lies: location (a file name), offset, length, and ONNX Runtime's entries prepacked_N.
Location = dict[str, str]

# By message: name, field number, what the field holds (a message, a text, bytes or an integer), whether it is repeated.
FIELDS = {
    "Model": [
        ("ir_version", 1, "int", False),
        ("graph", 7, "Graph", False),
        ("opset_import", 8, "Opset", True),
        ("functions", 25, "bytes", True),
    ],
    "Opset": [("version", 2, "int", False)],
    "Graph": [("node", 1, "Node", True), ("initializer", 5, "Tensor", True), ("sparse_initializer", 15, "bytes", True)],
    "Node": [("input", 1, "text", True), ("op_type", 4, "text", False), ("attribute", 5, "Attribute", True)],
    "Attribute": [
        ("t", 5, "Tensor", False),
        ("g", 6, "Graph", False),
        ("tensors", 10, "Tensor", True),
        ("graphs", 11, "Graph", True),
        ("sparse_tensor", 22, "bytes", False),
        ("sparse_tensors", 23, "bytes", True),
    ],
    "Tensor": [
        ("dims", 1, "int", True),
        ("data_type", 2, "int", False),
        ("name", 8, "text", False),
        ("raw_data", 9, "bytes", False),
        ("external_data", 13, "Entry", True),
        ("data_location", 14, "int", False),
    ],
    "Entry": [("key", 1, "text", False), ("value", 2, "text", False)],
}


def _model_class() -> Any:
    """Make the class of a message that knows the fields above, and keeps those that it does not know."""
    file = descriptor_pb2.FileDescriptorProto(name="specc_onnx_file.proto", package="specc_onnx", syntax="proto2")
    kinds = descriptor_pb2.FieldDescriptorProto
    plain = {"text": kinds.TYPE_STRING, "bytes": kinds.TYPE_BYTES, "int": kinds.TYPE_INT64}
    for message, fields in FIELDS.items():
        descriptor = file.message_type.add(name=message)
        for name, number, content, repeated in fields:
            descriptor.field.add(
                name=name,
                number=number,
                label=kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL,
                type=plain.get(content, kinds.TYPE_MESSAGE),
                type_name=None if content in plain else f".specc_onnx.{content}",
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("specc_onnx.Model"))


_Model = _model_class()


def parse(data: bytes) -> Any:
    """Read the bytes of an ONNX file as a message with the fields above.

    Raises:
        ValueError: they are no such message, or it is nested more than 100 deep.
    """
    try:
        return _Model.FromString(data)
    except DecodeError as e:
        raise ValueError(first_line(e)) from e


class OnnxFile:
    """An ONNX file whose weights can be sent to other places.

    Attributes:
        weights: where each external tensor lies, by name. Change it and `save`.
        users: the operators that each external tensor feeds, by name.
    """

    def __init__(self, file: Path) -> None:
        self._model = parse(file.read_bytes())
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
