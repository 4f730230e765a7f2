"""ONNX Runtime, which specc imports here and nowhere else.

Its library looks up a host for its telemetry and writes a device id as soon as it is loaded. A call after the import
does not stop that, so the variable that does is set first.
"""

from __future__ import annotations

import importlib
from typing import Any

from ..environment import switch_telemetry_off

switch_telemetry_off()

import onnxruntime as ort  # noqa: E402
from onnxruntime import InferenceSession  # noqa: E402  It fails if another package overwrote a part of ONNX Runtime.

__all__ = ["FATAL", "InferenceSession", "matrix_quantizers", "ort"]

FATAL = 4  # The severity of what ONNX Runtime may log: errors come as exceptions, which specc reports in one line.
ort.set_default_logger_severity(FATAL)


def matrix_quantizers() -> Any:
    """Return ONNX Runtime's module that quantises matrices. It needs the package onnx."""
    return importlib.import_module("onnxruntime.quantization.matmul_nbits_quantizer")
