"""Three sessions of ONNX Runtime that six threads run at once: `concurrent_sessions.py [shared]`.

Each session has an operator with loops over its own two threads. Those of the third have stages, which wait for each
other. Every answer must have the bits of the session alone.
With `shared` two threads write to one output, which is a race that a sanitizer must report.
"""

from __future__ import annotations

import sys
import threading

import numpy as np
import onnxruntime as ort
import operator_graphs as graphs
from specc_kernels import pack

ROWS, K, COLUMNS, RUNS = 16, 576, 512, 3


def sessions() -> list[ort.InferenceSession]:
    """Make sessions of LinearNBits, LinearBF16 and GatedMLP, each large enough for loops over threads."""
    rng = np.random.default_rng(0)
    numbers = rng.integers(0, 256, (K, COLUMNS), np.uint8)
    scales = rng.random((K // 32, COLUMNS), np.float32)
    weights = {"w": pack.nbits(numbers, 8, 32), "s": pack.per_block(scales)}
    few_bits = graphs.linear("LinearNBits", K, COLUMNS, weights, threads=2, bits=8, block_size=32)
    return [few_bits, graphs.bf16(rng.standard_normal((K, COLUMNS), np.float32), threads=2), network()]


def network() -> ort.InferenceSession:
    """Make a session of GatedMLP with as many numbers inside as outside."""
    matrices = [graphs.matrix("bf16", K, COLUMNS, seed=0), graphs.matrix("bf16", K, COLUMNS, seed=1)]
    matrices.append(graphs.matrix("bf16", COLUMNS, COLUMNS, seed=2))
    weights: dict[str, np.ndarray | None] = {"n": None}
    weights |= {f"{m}{i}": part for m, matrix in enumerate(matrices) for i, part in enumerate(matrix.inputs)}
    inputs = {"x": np.zeros((1, K), np.float32), "r": None}
    return graphs.session("GatedMLP", inputs, weights, ["y"], 2, hidden=COLUMNS, columns=COLUMNS, epsilon=1e-5)


def run_often(session: ort.InferenceSession, x: np.ndarray, expected: np.ndarray, different: list[str]) -> None:
    """Run a session some times, and note answers that differ."""
    for _ in range(RUNS):
        if not graphs.same_bits(graphs.run(session, x), expected):
            different.append("an answer beside others has other bits")


def write_to(session: ort.InferenceSession, x: np.ndarray, output: ort.OrtValue) -> None:
    """Run a session with an output that may be shared."""
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_ortvalue_output("y", output)
    for _ in range(RUNS):
        session.run_with_iobinding(binding)


def main() -> None:
    """Run all threads. The exit status is 1 if an answer was wrong."""
    inputs = [np.random.default_rng(i).standard_normal((ROWS, K), np.float32) for i in range(2)]
    three, different = sessions(), list[str]()
    if sys.argv[1:] == ["shared"]:
        output = ort.OrtValue.ortvalue_from_numpy(np.zeros((ROWS, COLUMNS), np.float32))
        threads = [threading.Thread(target=write_to, args=(session, inputs[0], output)) for session in three[:2]]
    else:
        threads = [
            threading.Thread(target=run_often, args=(session, x, graphs.run(session, x), different))
            for session in three
            for x in inputs
        ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.exit(different[0] if different else 0)


if __name__ == "__main__":
    main()
