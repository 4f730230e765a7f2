"""Operators of specc-kernels against what takes their place: weights unpacked exactly, attention to the last bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from specc.backends.standard_onnx import dense, has_lanes, numbers, per_block, standardise, with_offsets
from specc.runtime.engines import kernels
from specc.runtime.errors import BackendError

pack: Any = pytest.importorskip("specc_kernels.pack", reason="specc-kernels is not built; pip install ./kernels")
pytestmark = pytest.mark.torch

HEADS, KV_HEADS, SIZE, CAPACITY, PAST, SLOTS = 4, 2, 16, 40, 11, 5
TREE = np.array([[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 1, 0, 1]], bool)
DEPTHS = np.array([0, 1, 1, 2, 2])
ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "uint8": TensorProto.UINT8,
}


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(("k", "columns"), [(64, 64), (5, 33), (96, 7)])
def test_dense_panels_unpack_to_the_matrix(k: int, columns: int) -> None:
    matrix = random(k, columns)
    words = pack.to_bf16(matrix)
    assert np.array_equal(dense(pack.f32(matrix), columns, k), matrix.T)
    rounded = pack.from_bf16(pack.bf16(words))  # bf16 panels as values
    assert np.array_equal(dense(rounded, columns, k), pack.from_bf16(words).T)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("block", [32, 64])
def test_numbers_of_few_bits_unpack_to_those_that_were_packed(bits: int, block: int) -> None:
    values = np.random.default_rng(0).integers(0, 1 << bits, (2 * block, 35), np.uint8)
    result = numbers(pack.nbits(values, bits, block), 35, bits)
    split = np.stack([result & 15, result >> 4], -1).reshape(35, -1) if bits == 4 else result.reshape(35, -1)
    assert result.shape == (35, 2, block * bits // 8) and np.array_equal(split, values.T)


def test_scales_unpack_to_one_for_each_column_and_block() -> None:
    scales = random(3, 35)
    assert np.array_equal(per_block(pack.per_block(scales), 35), scales.T)


@pytest.mark.parametrize("bits", [4, 8])
def test_weights_with_offsets_widen_to_scale_times_number_plus_offset(bits: int) -> None:
    values = np.random.default_rng(0).integers(0, 1 << bits, (60, 35), np.uint8)
    scales, offsets = random(2, 35), random(2, 35, seed=1)
    result = with_offsets(
        pack.nbits(values, bits, 32), pack.per_block(scales), pack.per_block(offsets), columns=35, bits=bits, k=60
    )
    factors, shifts = (np.repeat(part, 32, 0)[:60].astype(np.float64) for part in (scales, offsets))
    np.testing.assert_array_equal(result, (values * factors + shifts).T.astype(np.float32))


def model_of(inputs: dict[str, np.ndarray | None], rows: dict[str, np.ndarray], **attributes: Any) -> ir.Model:
    """Return a model of one TreeAttention."""
    names = [name if value is not None else "" for name, value in inputs.items()]
    shape_of_rows = [1, KV_HEADS, CAPACITY, SIZE]
    values = [
        helper.make_tensor_value_info(name, ELEMENTS[str(value.dtype)], value.shape)
        for name, value in (inputs | rows).items()
        if value is not None
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, SLOTS, HEADS * SIZE])]
    outputs += [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape_of_rows) for n in ("keys", "values")]
    node = helper.make_node(
        "TreeAttention", [*names, *rows], ["y", "keys", "values"], domain="specc",
        num_heads=HEADS, kv_num_heads=KV_HEADS, scale=0.25, **attributes,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("specc", 1)]
    return ir.from_proto(
        helper.make_model(helper.make_graph([node], "one", values, outputs), opset_imports=opsets, ir_version=9)
    )


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    kernels.register(options)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    results: list[np.ndarray] = session.run(None, feeds)
    return results


def inputs_of(mask: np.ndarray | None, rotates: bool, sinks: bool, positions: np.ndarray) -> Any:
    cos, sin = (random(CAPACITY, SIZE // 2, seed=seed) for seed in (2, 3))
    return {
        "packed": random(1, SLOTS, (HEADS + 2 * KV_HEADS) * SIZE),
        "past_len": np.array([PAST]),
        "widths": None,
        "positions": positions[None],
        "cos": cos if rotates else None,
        "sin": sin if rotates else None,
        "mask": mask,
        "sinks": random(HEADS, seed=4) if sinks else None,
    }


SPAN = np.concatenate([np.tile(np.array([[1, 0, 1]], bool), (SLOTS, 1)), TREE], 1)  # governs three rows before, too
MASKS = {"chain": None, "tree": TREE, "span": SPAN}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("window", [0, 6])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_attention_by_standard_operators_is_that_of_the_kernels(mask: str, window: int, interleaved: int) -> None:
    depths = np.arange(SLOTS) if mask == "chain" else DEPTHS
    inputs = inputs_of(MASKS[mask], rotates=True, sinks=not window, positions=PAST + depths)
    rows = {"past_key": random(1, KV_HEADS, CAPACITY, SIZE, seed=5)}
    rows["past_value"] = random(1, KV_HEADS, CAPACITY, SIZE, seed=6)
    attributes: dict[str, Any] = {"local_window_size": window, "rotary_interleaved": interleaved}
    model = model_of(inputs, rows, softcap=0.0 if window else 3.0, **attributes)
    feeds = {name: value for name, value in (inputs | rows).items() if value is not None}
    expected = run(model, feeds)
    assert standardise(model) == 1 and "specc" not in model.opset_imports
    assert {node.domain for node in model.graph} <= {"", "com.microsoft"}
    y, keys, values = run(model, feeds)
    np.testing.assert_allclose(y, expected[0], atol=2e-5)
    used = slice(0, PAST + SLOTS)
    np.testing.assert_allclose(keys[:, :, used], expected[1][:, :, used], atol=1e-6)
    assert np.array_equal(values[:, :, used], expected[2][:, :, used])


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Weights of one kind as an operator of several products takes them: panels, scales, zero points, offsets, bias."""

    kind: str
    k: int
    columns: int
    seed: int = 0

    def inputs(self) -> list[np.ndarray | None]:
        """Return the weights, and None for what this kind does not have."""
        if self.kind == "fp32":
            return [pack.f32(random(self.k, self.columns, seed=self.seed)), None, None, None, None]
        blocks = -(-self.k // 32)
        numbers_KxN = np.random.default_rng(self.seed).integers(0, 16, (self.k, self.columns), np.uint8)
        scales = pack.per_block(random(blocks, self.columns, seed=self.seed) * np.float32(0.1))
        bias = random(self.columns, seed=self.seed)
        return [pack.nbits(numbers_KxN, 4, 32), scales, None, None, bias]


def layer_of(operator: str, values: dict[str, np.ndarray | None], outputs: list[str], **attributes: Any) -> ir.Model:
    """Return a model of one operator of half a layer. What it reads but for x, the residual and caches is stored."""
    stored = {name: value for name, value in values.items() if value is not None and name not in FED}
    names = [name if value is not None else "" for name, value in values.items()]
    inputs = [
        helper.make_tensor_value_info(name, ELEMENTS[str(value.dtype)], value.shape)
        for name, value in values.items()
        if value is not None and name in FED
    ]
    constants = [
        helper.make_tensor(name, ELEMENTS[str(value.dtype)], value.shape, value.tobytes(), raw=True)
        for name, value in stored.items()
    ]
    node = helper.make_node(operator, names, outputs, domain="specc", **attributes)
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs if name]
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("specc", 1)]
    graph = helper.make_graph([node], "one", inputs, results, constants)
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=9))


FED = ("x", "residual", "past_key", "past_value")
K, HIDDEN, COLUMNS = 20, 50, 37


def with_sum(has_norm: bool) -> dict[str, np.ndarray | None]:
    """Return the first inputs of an operator of half a layer."""
    residual, norm = random(1, SLOTS, COLUMNS, seed=1), random(COLUMNS, seed=2)
    return {
        "x": random(1, SLOTS, K),
        "residual": residual if has_norm else None,
        "norm": norm if has_norm else None,
    }


def weights_of(*matrices: Matrix) -> dict[str, np.ndarray | None]:
    return {f"{number}.{kind}": part for number, m in enumerate(matrices) for kind, part in enumerate(m.inputs())}


def assert_standard_is_near(model: ir.Model, values: dict[str, np.ndarray | None], tolerance: float) -> None:
    """Run a model, rewrite it, and run it again."""
    feeds = {name: value for name, value in values.items() if value is not None and name in FED}
    expected = run(model, feeds)
    assert standardise(model) == 1 and "specc" not in model.opset_imports
    assert {node.domain for node in model.graph} <= {"", "com.microsoft"}
    for value, original in zip(run(model, feeds), expected, strict=True):
        used = (slice(None), slice(None), slice(0, PAST + SLOTS)) if value.ndim == 4 else ()
        np.testing.assert_allclose(value[used], original[used], atol=tolerance * np.abs(original[used]).max())


@pytest.mark.parametrize("has_norm", [True, False])
@pytest.mark.parametrize(("kind", "tolerance"), [("fp32", 1e-5), ("int4", 0.02)])  # int4: another rounding to 8 bits
def test_a_gated_network_by_standard_operators_is_that_of_the_kernels(
    kind: str, tolerance: float, has_norm: bool
) -> None:
    matrices = [Matrix(kind=kind, k=K, columns=HIDDEN, seed=seed) for seed in (3, 4)]
    values = with_sum(has_norm) | weights_of(*matrices, Matrix(kind=kind, k=HIDDEN, columns=COLUMNS, seed=5))
    sizes = {"hidden": HIDDEN, "columns": COLUMNS, "k": K}
    model = layer_of("GatedMLP", values, ["y", "sum"] if has_norm else ["y"], **sizes, epsilon=1e-5)
    assert_standard_is_near(model, values, tolerance)


@pytest.mark.parametrize("has_norm", [True, False])
@pytest.mark.parametrize(("kind", "tolerance"), [("fp32", 1e-5), ("int4", 0.05)])  # int4: another rounding to 8 bits
def test_attention_with_its_products_by_standard_operators_is_that_of_the_kernels(
    kind: str, tolerance: float, has_norm: bool
) -> None:
    width = (HEADS + 2 * KV_HEADS) * SIZE
    matrices = Matrix(kind=kind, k=K, columns=width, seed=3), Matrix(kind=kind, k=HEADS * SIZE, columns=COLUMNS, seed=4)
    attention = inputs_of(None, rotates=True, sinks=False, positions=PAST + np.arange(SLOTS))
    del attention["packed"]
    values = with_sum(has_norm) | weights_of(*matrices) | attention
    values |= {name: random(1, KV_HEADS, CAPACITY, SIZE, seed=seed) for seed, name in enumerate(FED[2:], 5)}
    heads = {"num_heads": HEADS, "kv_num_heads": KV_HEADS, "head_size": SIZE, "scale": 0.25}
    outputs = ["y", "sum" if has_norm else "", "keys", "values"]
    model = layer_of("ProjectedAttention", values, outputs, **heads, columns=COLUMNS, k=K, epsilon=1e-5)
    assert not has_lanes(model)
    assert_standard_is_near(model, values, tolerance)


def test_a_rotation_that_onnx_runtime_does_not_know_is_refused() -> None:
    inputs = inputs_of(None, rotates=True, sinks=False, positions=PAST + np.arange(SLOTS))
    inputs |= {name: inputs[name][:, :3] for name in ("cos", "sin")}
    rows = {name: random(1, KV_HEADS, CAPACITY, SIZE) for name in ("past_key", "past_value")}
    with pytest.raises(BackendError, match="6 numbers of each head turn by their position, and ONNX Runtime's"):
        standardise(model_of(inputs, rows))


def test_lanes_are_noticed() -> None:
    inputs = inputs_of(None, rotates=False, sinks=False, positions=PAST + np.arange(SLOTS))
    rows = {name: random(1, KV_HEADS, CAPACITY, SIZE) for name in ("past_key", "past_value")}
    assert not has_lanes(model_of(inputs, rows))
    assert has_lanes(model_of(inputs | {"widths": np.array([SLOTS])}, rows))


def test_an_operator_without_a_counterpart_is_named() -> None:
    node = helper.make_node("LinearFP8", ["x"], ["y"], domain="specc")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([node], "one", values[:1], values[1:])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("specc", 1)]))
    with pytest.raises(BackendError, match="the operator specc::LinearFP8 has no standard counterpart; upgrade specc"):
        standardise(model)
