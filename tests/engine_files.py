"""Engines of a tiny Llama as ONNX files, and what runs them without a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnxruntime as ort

from specc.runtime.block import Block
from specc.runtime.engines.ort_cpu import session_options
from specc.runtime.manifest import CacheSpec, EngineSpec

if TYPE_CHECKING:
    from specc.backends import Options

CAPACITY = 64


def build(directory: Path, block: Block, options: Options | None = None) -> EngineSpec:
    """Build an engine, verify.onnx, with its weights and its commit file if it has one."""
    # These import torch: tests of what runs an engine share this file and need none.
    from graphs import prepared

    from specc import backends, passes
    from specc.backends.onnx import ONNX
    from specc.compiler import weights

    graph, file = prepared("llama"), directory / weights.file_name(block.weights)
    if not file.exists():
        weights.write_type(weights.collect(graph), file, block.weights)
    passes.run(passes.pipeline(block, CAPACITY), graph)
    result = ONNX.build(graph, block, file, "", directory / "verify.onnx", options or backends.Options("portable"))
    return EngineSpec(
        name="verify",
        backend="onnx",
        file="verify.onnx",
        block=block,
        layers=("0", "1", "2"),
        inputs=result.inputs,
        outputs=result.outputs,
        passes=(),
        needs=result.needs,
        commit=result.commit,
    )


def cache_spec(spec: EngineSpec | None = None) -> CacheSpec:
    """Return the cache of the engine, in its own type; without an engine in fp32."""
    layers = {str(layer): (2, 16) for layer in range(3)}
    if spec is None:
        return CacheSpec(CAPACITY, layers)
    return CacheSpec(CAPACITY, layers, next(t.dtype for t in spec.inputs if t.name.endswith(".key")))


def cpu_session(file: Path) -> ort.InferenceSession:
    """Load a file on the CPU."""
    return ort.InferenceSession(str(file), session_options(), providers=["CPUExecutionProvider"])
