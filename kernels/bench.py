"""Time the matrices of one model, by operator and rows: `python kernels/bench.py`.

A graph holds the products of all layers and of the head, each fed by the same activations. Systems and widths take
turns within a round, so that the drift of a machine meets all alike; medians over rounds are printed, and their
ratios to one row.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnx
import onnxruntime as ort
import specc_kernels
from onnx import TensorProto, helper
from specc_kernels import pack

# (k, columns) of each product of a layer, layers, the head
MODELS = {
    "135m": ([(576, 960), (576, 576), (576, 3072), (1536, 576)], 30, (576, 49152)),
    "1b": ([(2048, 3072), (2048, 2048), (2048, 16384), (8192, 2048)], 16, (2048, 128256)),
}
ROWS = (1, 2, 4, 6, 8, 12, 16, 24)
Node = tuple[onnx.NodeProto, list[onnx.TensorProto]]


def tensor(name: str, kind: int, array: np.ndarray) -> onnx.TensorProto:
    return helper.make_tensor(name, kind, array.shape, array.tobytes(), raw=True)


def matmul(i: int, weights: np.ndarray) -> Node:
    node = helper.make_node("MatMul", [f"x{len(weights)}", f"w{i}"], [f"y{i}"])
    return node, [tensor(f"w{i}", TensorProto.FLOAT, weights)]


def bf16(i: int, weights: np.ndarray) -> Node:
    k, columns = weights.shape
    node = helper.make_node("LinearBF16", [f"x{k}", f"w{i}"], [f"y{i}"], domain="specc", columns=columns)
    return node, [tensor(f"w{i}", TensorProto.BFLOAT16, pack.bf16(pack.to_bf16(weights)))]


def f32(i: int, weights: np.ndarray) -> Node:
    k, columns = weights.shape
    node = helper.make_node("LinearF32", [f"x{k}", f"w{i}"], [f"y{i}"], domain="specc", columns=columns)
    return node, [tensor(f"w{i}", TensorProto.FLOAT, pack.f32(weights))]


def nbits(bits: int, block: int, half: bool, zeros: bool) -> Callable[[int, np.ndarray], Node]:
    def build(i: int, weights: np.ndarray) -> Node:
        k, columns = weights.shape
        rng = np.random.default_rng(i)
        blocks = -(-k // block)
        packed = pack.nbits(rng.integers(0, 2**bits, (k, columns), np.uint8), bits, block)
        scales = pack.per_block(rng.random((blocks, columns), np.float32))
        inputs = [f"x{k}", f"w{i}", f"s{i}", f"z{i}"][: 3 + zeros]
        node = helper.make_node(
            "LinearNBits", inputs, [f"y{i}"], domain="specc", columns=columns, bits=bits, block_size=block
        )
        kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
        tensors = [
            tensor(f"w{i}", TensorProto.UINT8, packed),
            tensor(f"s{i}", kind, scales.astype(np.float16) if half else scales),
        ]
        if zeros:
            points = pack.per_block(rng.integers(0, 2**bits, (blocks, columns), np.uint8))
            tensors.append(tensor(f"z{i}", TensorProto.UINT8, points))
        return node, tensors

    return build


def matmul_nbits(bits: int, block: int) -> Callable[[int, np.ndarray], Node]:
    def build(i: int, weights: np.ndarray) -> Node:
        k, columns = weights.shape
        rng = np.random.default_rng(i)
        blocks = -(-k // block)
        node = helper.make_node(
            "MatMulNBits",
            [f"x{k}", f"w{i}", f"s{i}"],
            [f"y{i}"],
            domain="com.microsoft",
            K=k,
            N=columns,
            bits=bits,
            block_size=block,
            accuracy_level=4,
        )
        return node, [
            tensor(f"w{i}", TensorProto.UINT8, rng.integers(0, 256, (columns, blocks, block * bits // 8), np.uint8)),
            tensor(f"s{i}", TensorProto.FLOAT, rng.random(columns * blocks, np.float32)),
        ]

    return build


SYSTEMS: dict[str, Callable[[int, np.ndarray], Node]] = {
    "MatMul fp32": matmul,
    "LinearF32": f32,
    "LinearBF16": bf16,
    "MatMulNBits 4/32": matmul_nbits(4, 32),
    "MatMulNBits 8/32": matmul_nbits(8, 32),
    "LinearNBits 4/32": nbits(4, 32, half=False, zeros=False),
    "LinearNBits 4/32 fp16": nbits(4, 32, half=True, zeros=False),
    "LinearNBits 4/32 fp16 zeros": nbits(4, 32, half=True, zeros=True),
    "LinearNBits 4/64 fp16": nbits(4, 64, half=True, zeros=False),
    "LinearNBits 8/32 fp16": nbits(8, 32, half=True, zeros=False),
}


class Stack:
    """The products of one model by one operator, with inputs and outputs bound for each number of rows."""

    def __init__(
        self,
        build: Callable[[int, np.ndarray], Node],
        model: str,
        rows: tuple[int, ...],
        threads: int,
        library: str,
    ):
        layer, layers, head = MODELS[model]
        shapes = [*layer * layers, head]
        rng = np.random.default_rng(0)
        nodes: list[onnx.NodeProto] = []
        tensors: list[onnx.TensorProto] = []
        for i, shape in enumerate(shapes):
            node, own = build(i, rng.standard_normal(shape, np.float32))
            nodes.append(node)
            tensors += own
        ks = sorted({k for k, _ in shapes})
        inputs = [helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, ["rows", k]) for k in ks]
        outputs = [
            helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["rows", n]) for i, (_, n) in enumerate(shapes)
        ]
        opsets = [helper.make_opsetid(d, v) for d, v in (("", 21), ("specc", 1), ("com.microsoft", 1))]
        graph = helper.make_graph(nodes, "stack", inputs, outputs, tensors)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.spin_duration_us", "80")
        options.log_severity_level = 3
        options.register_custom_ops_library(library)
        model_bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        self.session = ort.InferenceSession(model_bytes, options)
        self.bindings: dict[int, ort.IOBinding] = {}
        for r in rows:
            binding = self.bindings[r] = self.session.io_binding()
            for k in ks:
                values = ort.OrtValue.ortvalue_from_numpy(rng.standard_normal((r, k), np.float32))
                binding.bind_ortvalue_input(f"x{k}", values)
            for i, (_, n) in enumerate(shapes):
                binding.bind_ortvalue_output(f"y{i}", ort.OrtValue.ortvalue_from_numpy(np.zeros((r, n), np.float32)))

    def time(self, rows: int, clock: Callable[[], float]) -> float:
        """Run once; returns milliseconds."""
        start = clock()
        self.session.run_with_iobinding(self.bindings[rows])
        return 1e3 * (clock() - start)


def rounds(
    systems: dict[str, Stack], rows: tuple[int, ...], number: int, clock: Callable[[], float]
) -> Iterator[tuple[str, int, float]]:
    for _ in range(number):
        for name, stack in systems.items():
            stack.time(rows[0], clock)  # untimed: the first run after another system finds its weights in no cache
            for r in rows:
                yield name, r, stack.time(r, clock)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="135m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), metavar="NAME", help=", ".join(SYSTEMS))
    parser.add_argument("--limit", help="use no variant faster than this one")
    parser.add_argument(
        "--against", metavar="LIBRARY", help="another build of the library, which runs in turns with this one"
    )
    parser.add_argument(
        "--cpu-time", action="store_true", help="count processor time, for a busy machine and one thread"
    )
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    if args.limit:
        specc_kernels.limit(args.limit)
    rows = tuple(args.rows)
    print(f"{args.model}, {args.threads} threads, {args.rounds} rounds, variant {specc_kernels.describe().active}")
    libraries = {"": str(specc_kernels.library_path())}
    if args.against:
        libraries = {" of the other": args.against} | libraries
    stacks = {
        name + which: Stack(SYSTEMS[name], args.model, rows, args.threads, library)
        for name in args.systems
        for which, library in libraries.items()
    }
    times: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    for name, r, elapsed in rounds(stacks, rows, args.rounds, clock):
        times[name, r].append(elapsed)
    print("| ms (ratio to 1 row) | " + " | ".join(map(str, rows)) + " |")
    print("| --- |" + " --- |" * len(rows))
    for name in stacks:
        medians = [statistics.median(times[name, r]) for r in rows]
        print(f"| {name} | " + " | ".join(f"{m:.2f} ({m / medians[0]:.2f})" for m in medians) + " |")


if __name__ == "__main__":
    main()
