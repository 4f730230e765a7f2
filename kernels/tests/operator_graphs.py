"""Graphs of one custom operator, as sessions of ONNX Runtime."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import specc_kernels
from onnx import TensorProto, helper
from specc_kernels import pack

OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("specc", 1)]
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL,
         "uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16, "uint16": TensorProto.BFLOAT16}  # fmt: skip


KINDS = ("fp32", "bf16", "4 bits", "8 bits, zero points", "8 bits, offsets")  # of weights


class Matrix(NamedTuple):
    """Weights as operators of several products take them, and their values in fp32 [k, columns]."""

    inputs: list[np.ndarray | None]  # panels, scales, zero points, offsets, biases
    values: np.ndarray

    def with_bias(self, bias: np.ndarray) -> Matrix:
        """Return the matrix with a bias for each column."""
        return self._replace(inputs=[*self.inputs[:4], bias])


def matrix(kind: str, k: int, columns: int, seed: int = 0) -> Matrix:
    """Make random weights of one of KINDS, of a size that keeps products near one."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((k, columns), np.float32) * np.float32(k**-0.5)
    if kind == "fp32":
        return Matrix([pack.f32(values), *[None] * 4], values)
    if kind == "bf16":
        words = pack.to_bf16(values)
        return Matrix([pack.bf16(words), *[None] * 4], pack.from_bf16(words))
    bits, block = (4, 64) if kind == "4 bits" else (8, 16)
    blocks = -(-k // block)
    numbers = rng.integers(0, 2**bits, (k, columns), np.uint8)
    scales = (rng.random((blocks, columns)) * 2.0 ** (1 - bits) * k**-0.5).astype(np.float32)
    points = np.full((blocks, columns), 2 ** (bits - 1), np.uint8)
    offsets = np.zeros((blocks, columns), np.float32)
    inputs: list[np.ndarray | None] = [pack.nbits(numbers, bits, block), pack.per_block(scales), *[None] * 3]
    if kind.endswith("zero points"):
        points = rng.integers(100, 150, (blocks, columns), np.uint8)
        inputs[2] = pack.per_block(points)
    if kind.endswith("offsets"):
        points, offsets = np.zeros_like(points), scales * np.float32(-127)
        inputs[3] = pack.per_block(offsets)
    wide = [np.repeat(part.astype(np.float32), block, 0)[:k] for part in (points, scales, offsets)]
    return Matrix(inputs, (numbers - wide[0]) * wide[1] + wide[2])


def session(
    operator: str,
    inputs: dict[str, np.ndarray | None],
    weights: dict[str, np.ndarray | None],
    outputs: list[str],
    threads: int = 1,
    output_type: int = TensorProto.FLOAT,
    **attributes: Any,
) -> ort.InferenceSession:
    """Make a session of one node. `inputs` gives types and, in order with `weights`, names; None stands for absent."""
    names = [name if value is not None else "" for name, value in inputs.items()] + [
        name if value is not None else "" for name, value in weights.items()
    ]
    values = [
        helper.make_tensor_value_info(name, TYPES[str(value.dtype)], [None] * value.ndim)
        for name, value in inputs.items()
        if value is not None
    ]
    constants = [
        helper.make_tensor(name, TYPES[str(value.dtype)], value.shape, value.tobytes(), raw=True)
        for name, value in weights.items()
        if value is not None
    ]
    graph = helper.make_graph(
        [helper.make_node(operator, names, outputs, domain=specc_kernels.DOMAIN, **attributes)],
        "one",
        values,
        [helper.make_tensor_value_info(name, output_type, None) for name in outputs if name],
        constants,
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # The threads may outnumber the cores.
    options.register_custom_ops_library(specc_kernels.library_path())
    model = helper.make_model(graph, opset_imports=OPSETS, ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), options)


def linear(
    operator: str, k: int, columns: int, weights: dict[str, np.ndarray], threads: int = 1, **attributes: int
) -> ort.InferenceSession:
    return session(
        operator, {"x": np.zeros((1, k), np.float32)}, weights, ["y"], threads, columns=columns, **attributes
    )


def bf16(weights_KxN: np.ndarray, threads: int = 1) -> ort.InferenceSession:
    """LinearBF16 of weights that are rounded to bf16."""
    return linear("LinearBF16", *weights_KxN.shape, {"w": pack.bf16(pack.to_bf16(weights_KxN))}, threads)


def f32(weights_KxN: np.ndarray, threads: int = 1) -> ort.InferenceSession:
    return linear("LinearF32", *weights_KxN.shape, {"w": pack.f32(weights_KxN)}, threads)


def run(one: ort.InferenceSession, x: np.ndarray) -> np.ndarray:
    return one.run(None, {"x": x})[0]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether all bits are equal, where NaN equals NaN whatever its payload."""
    nan = np.isnan(a)
    return np.array_equal(nan, np.isnan(b)) and np.array_equal(a.view(np.uint32)[~nan], b.view(np.uint32)[~nan])
