"""Graphs of one custom operator, as sessions of ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import specc_kernels
from onnx import TensorProto, helper
from specc_kernels import pack

OPSETS = [helper.make_opsetid("", 21), helper.make_opsetid("specc", 1)]
TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL,
         "uint8": TensorProto.UINT8, "float16": TensorProto.FLOAT16, "uint16": TensorProto.BFLOAT16}  # fmt: skip


def session(
    operator: str,
    inputs: dict[str, np.ndarray | None],
    weights: dict[str, np.ndarray | None],
    outputs: list[str],
    threads: int = 1,
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
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
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
