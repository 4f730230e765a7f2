"""Measure one attention node of ONNX Runtime alone, in the shape of SmolLM2-135M: what its time consists of.

    python benchmarks/bench_attention.py     # prints microseconds by slots and rows, and a line fitted through them

After the same number of rows, each slot costs the same. A call costs something besides, since it packs the keys anew
for each query head. `bias` is a node with the mask of a tree. The caches of the processor are warm here; between the
layers of a model they are not.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from specc.cli import console
from specc.runtime.engines.ort_cpu import session_options

HEADS, KV_HEADS, SIZE, CAPACITY = 9, 3, 64, 2048
SLOTS, ROWS = (1, 4, 8, 12, 16), (64, 1024)
CALLS, ROUNDS = 60, 9


def node(slots: int, bias: bool) -> bytes:
    """Make a model of one GroupQueryAttention that updates its cache in place.

    Args:
        slots: how many slots it takes.
        bias: whether it takes the mask of a tree.
    """
    cache = [1, KV_HEADS, CAPACITY, SIZE]
    shapes: dict[str, list[int | str]] = {
        "qkv": [1, slots, (HEADS + 2 * KV_HEADS) * SIZE],
        "past_key": [*cache],
        "past_value": [*cache],
        "last": [1],
        "total": [1],
    }
    names = ["qkv", "", "", "past_key", "past_value", "last", "total"]
    if bias:
        shapes["bias"] = [1, 1, slots, "total"]
        names += ["", "", "", "bias"]
    types = {"last": TensorProto.INT32, "total": TensorProto.INT32}
    attention = helper.make_node(
        "GroupQueryAttention",
        names,
        ["out", "key", "value"],
        domain="com.microsoft",
        num_heads=HEADS,
        kv_num_heads=KV_HEADS,
    )
    inputs = [
        helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), shape) for name, shape in shapes.items()
    ]
    outputs = {"out": [1, slots, HEADS * SIZE], "key": cache, "value": cache}
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph([attention], "one", inputs, results)
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def microseconds(slots: int, rows: int, bias: bool) -> float:
    """Time calls of one node, and return the median without the first quarter.

    Args:
        slots: how many slots the node takes.
        rows: rows of keys and values before them.
        bias: whether the node takes the mask of a tree.
    """
    session = ort.InferenceSession(node(slots, bias), session_options(), providers=["CPUExecutionProvider"])
    rng, binding, total = np.random.default_rng(0), session.io_binding(), rows + slots
    values = {
        "qkv": rng.standard_normal((1, slots, (HEADS + 2 * KV_HEADS) * SIZE), np.float32),
        "past_key": rng.standard_normal((1, KV_HEADS, CAPACITY, SIZE), np.float32),
        "past_value": rng.standard_normal((1, KV_HEADS, CAPACITY, SIZE), np.float32),
        "last": np.array([total - 1], np.int32),
        "total": np.array([total], np.int32),
        "bias": np.zeros((1, 1, slots, total), np.float32),
        "out": np.zeros((1, slots, HEADS * SIZE), np.float32),
    }
    bound = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in values.items()}
    for tensor in session.get_inputs():
        binding.bind_ortvalue_input(tensor.name, bound[tensor.name])
    for name, value in {"out": "out", "key": "past_key", "value": "past_value"}.items():
        binding.bind_ortvalue_output(name, bound[value])
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        seconds.append(time.perf_counter() - start)
    return median(seconds[CALLS // 4 :]) * 1e6


def main() -> None:
    """Print the medians over rounds, and for each number of rows the cost of a slot and of a call."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    cases = [(slots, rows, bias) for bias in (False, True) for rows in ROWS for slots in SLOTS]
    rounds = [{case: microseconds(*case) for case in cases} for _ in range(ROUNDS)]
    table = console.table("rows", "mask", *(f"{slots} slots" for slots in SLOTS), "a slot", "a call besides")
    for bias in (False, True):
        for rows in ROWS:
            times = [median(each[slots, rows, bias] for each in rounds) for slots in SLOTS]
            slope, rest = np.polyfit(SLOTS, times, 1)
            cells = [f"{value:.0f}" for value in (*times, slope, rest)]
            table.add_row(str(rows), "bias" if bias else "causal", *cells)
    console.show(table)


if __name__ == "__main__":
    main()
