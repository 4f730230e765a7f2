"""One attention node of ONNX Runtime alone, in SmolLM2-135M's shape: what its time is made of.

    python benchmarks/bench_attention.py            # microseconds by slots and rows, and a line through them
After as many rows each slot costs the same, and a call costs something besides: the keys are packed anew for each query
head. `bias` is a node with a tree's mask. The caches are warm here, as between layers they are not.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

from specc.runtime.engines.ort_cpu import session_options

HEADS, KV_HEADS, SIZE, CAPACITY = 9, 3, 64, 2048
SLOTS, ROWS = (1, 4, 8, 12, 16), (64, 1024)
CALLS, ROUNDS = 60, 9


def node(slots: int, bias: bool) -> bytes:
    """A graph of one GroupQueryAttention over a cache in place."""
    cache = [1, KV_HEADS, CAPACITY, SIZE]
    shapes = {
        "qkv": [1, slots, (HEADS + 2 * KV_HEADS) * SIZE], "past_key": cache, "past_value": cache, "last": [1],
        "total": [1], **({"bias": [1, 1, slots, "total"]} if bias else {}),
    }  # fmt: skip
    types = {"last": TensorProto.INT32, "total": TensorProto.INT32}
    inputs = ["qkv", "", "", "past_key", "past_value", "last", "total", *(["", "", "", "bias"] if bias else [])]
    attention = helper.make_node(
        "GroupQueryAttention", inputs, ["out", "key", "value"], domain="com.microsoft",
        num_heads=HEADS, kv_num_heads=KV_HEADS,
    )  # fmt: skip
    given = [helper.make_tensor_value_info(n, types.get(n, TensorProto.FLOAT), s) for n, s in shapes.items()]
    outputs = {"out": [1, slots, HEADS * SIZE], "key": cache, "value": cache}
    got = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph([attention], "one", given, got), opset_imports=opsets, ir_version=10)
    return model.SerializeToString()


def microseconds(slots: int, rows: int, bias: bool) -> float:
    """The median of so many calls."""
    session = ort.InferenceSession(node(slots, bias), session_options(), providers=["CPUExecutionProvider"])
    random, binding, total = np.random.default_rng(0), session.io_binding(), rows + slots
    values = {
        "qkv": random.standard_normal((1, slots, (HEADS + 2 * KV_HEADS) * SIZE), np.float32),
        "past_key": random.standard_normal((1, KV_HEADS, CAPACITY, SIZE), np.float32),
        "past_value": random.standard_normal((1, KV_HEADS, CAPACITY, SIZE), np.float32),
        "last": np.array([total - 1], np.int32), "total": np.array([total], np.int32),
        "bias": np.zeros((1, 1, slots, total), np.float32), "out": np.zeros((1, slots, HEADS * SIZE), np.float32),
    }  # fmt: skip
    bound = {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in values.items()}
    for given in session.get_inputs():
        binding.bind_ortvalue_input(given.name, bound[given.name])
    for name, at in {"out": "out", "key": "past_key", "value": "past_value"}.items():
        binding.bind_ortvalue_output(name, bound[at])
    seconds = []
    for _ in range(CALLS):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        seconds.append(time.perf_counter() - start)
    return median(seconds[CALLS // 4 :]) * 1e6


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    cases = [(slots, rows, bias) for bias in (False, True) for rows in ROWS for slots in SLOTS]
    rounds = [{case: microseconds(*case) for case in cases} for _ in range(ROUNDS)]
    table = Table("rows", "mask", *(f"{slots} slots" for slots in SLOTS), "a slot", "a call besides")
    for bias in (False, True):
        for rows in ROWS:
            row = [median(r[slots, rows, bias] for r in rounds) for slots in SLOTS]
            slope, rest = np.polyfit(SLOTS, row, 1)
            cells = [f"{x:.0f}" for x in (*row, slope, rest)]
            table.add_row(str(rows), "bias" if bias else "causal", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
