"""ProjectedAttention against the operators that it joins, bit by bit, and against itself at other widths."""

from __future__ import annotations

from typing import Any

import numpy as np
import operator_graphs as graphs
import pytest
import specc_kernels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_attention import Caches, Model, each_model
from test_attention import run as attend

K, COLUMNS, EPSILON = 40, 70, 1e-5
DENSE = {"fp32": "LinearF32", "bf16": "LinearBF16"}
each_kind = pytest.mark.parametrize("kind", graphs.KINDS)
examples = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Half:
    """Half a layer: the products around attention, of one kind each, and the norm behind them."""

    def __init__(self, model: Model, kind: str, last: str | None = None, has_bias: bool = False) -> None:
        self.model = model
        shapes = (kind, K, model.width), (last or kind, model.heads * model.size, COLUMNS)
        self.kinds = kind, last or kind
        self.matrices = [graphs.matrix(*shape, seed=seed) for seed, shape in enumerate(shapes)]
        if has_bias:
            biases = (np.linspace(-1, 1, columns).astype(np.float32) for _, _, columns in shapes)
            self.matrices = [m.with_bias(bias) for m, bias in zip(self.matrices, biases, strict=True)]
        self.norm = np.random.default_rng(0).standard_normal(COLUMNS).astype(np.float32)

    def rows(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(1)
        return rng.standard_normal((count, K), np.float32), rng.standard_normal((count, COLUMNS), np.float32)

    def run(
        self,
        x: np.ndarray,
        residual: np.ndarray | None,
        lanes: list[Caches],
        widths: list[int] | None = None,
        threads: int = 1,
        **attributes: Any,
    ) -> list[np.ndarray]:
        """Run the operator with the caches in place. Return the norm and the sum, or the product alone."""
        model, slots = self.model, len(x)
        cos, sin = model.tables() if model.rotated else (None, None)
        inputs: dict[str, np.ndarray | None] = {
            "x": x[None],
            "residual": None if residual is None else residual[None],
            "norm": None if residual is None else self.norm,
        }
        for index, matrix in enumerate(self.matrices):
            for kind, part in enumerate(matrix.inputs):
                inputs[f"weights.{index}.{kind}"] = part
        inputs |= {
            "past_len": np.array([lane.past for lane in lanes]),
            "widths": None if widths is None else np.array(widths),
            "positions": (lanes[0].past + np.arange(slots))[None],
            "cos": cos,
            "sin": sin,
            "mask": None,
            "sinks": model.sink_logits(),
        }
        for i, lane in enumerate(lanes):
            inputs |= {f"past.{i}.key": lane.keys, f"past.{i}.value": lane.values}
        sizes = {"head_size": model.size, "columns": COLUMNS, "epsilon": EPSILON}
        results = [np.zeros((1, slots, COLUMNS), np.float32) for _ in range(1 if residual is None else 2)]
        caches = [array for lane in lanes for array in (lane.keys, lane.values)]
        outputs = ["out", "" if residual is None else "sum", *(f"cache.{i}" for i in range(len(caches)))]
        session = graphs.session(
            "ProjectedAttention", inputs, {}, outputs, threads, **model.attributes() | sizes | attributes
        )
        binding = session.io_binding()
        for name, value in inputs.items():
            if value is not None and value.dtype == np.uint16:  # numpy has no bf16
                binding.bind_input(name, "cpu", 0, graphs.TensorProto.BFLOAT16, value.shape, value.ctypes.data)
            elif value is not None:
                binding.bind_cpu_input(name, value)
        for name, place in zip(filter(None, outputs), [*results, *caches], strict=True):
            binding.bind_output(name, "cpu", 0, np.float32, place.shape, place.ctypes.data)
        session.run_with_iobinding(binding)
        return [result[0] for result in results]

    def product(self, index: int, x: np.ndarray) -> np.ndarray:
        """Run one of the two products by the operator of products."""
        kind, (panels, scales, zeros, offsets, bias) = self.kinds[index], self.matrices[index].inputs
        columns = (self.model.width, COLUMNS)[index]
        if kind in DENSE:
            session = graphs.linear(DENSE[kind], x.shape[1], columns, {"w": panels})
        else:
            bits, block = (4, 64) if kind == "4 bits" else (8, 16)
            weights = {"w": panels, "s": scales, "z": zeros, "o": offsets}
            session = graphs.linear("LinearNBits", x.shape[1], columns, weights, bits=bits, block_size=block)
        result = graphs.run(session, x)
        return result if bias is None else result + bias

    def apart(self, x: np.ndarray, lanes: list[Caches], **options: Any) -> np.ndarray:
        """Compute the product behind attention by one operator after the other."""
        attended = attend(self.model, self.product(0, x), lanes, **options)
        return self.product(1, attended.reshape(len(x), -1))


@each_model
@given(
    kind=st.sampled_from(graphs.KINDS),
    last=st.sampled_from(graphs.KINDS),
    past=st.sampled_from([0, 5, 254, 300]),
    slots=st.integers(1, 40),
    threads=st.integers(1, 3),
    has_bias=st.booleans(),
)
@examples
def test_it_has_the_bits_of_the_operators_that_it_joins(
    model: Model, kind: str, last: str, past: int, slots: int, threads: int, has_bias: bool
) -> None:
    half, caches = Half(model, kind, last, has_bias), Caches(model, past)
    x, residual = half.rows(slots)
    others = caches.copy()
    norm, total = half.run(x, residual, [caches], threads=threads)
    product = half.apart(x, [others])
    assert graphs.same_bits(total, product + residual)
    assert graphs.same_bits(caches.keys, others.keys) and graphs.same_bits(caches.values, others.values)
    exact = total.astype(np.float64)
    exact = exact / np.sqrt((exact**2).mean(-1, keepdims=True) + EPSILON) * half.norm
    np.testing.assert_allclose(norm, exact, rtol=1e-5, atol=1e-6)
    (alone,) = half.run(x, None, [others], threads=threads)
    assert graphs.same_bits(alone, product)


@each_kind
def test_a_row_is_the_same_at_every_width_and_number_of_threads(kind: str, variant: str) -> None:
    half = Half(Model(), kind)
    x, residual = half.rows(24)
    caches = Caches(half.model, past=250)  # The slots write rows into two chunks.
    whole = half.run(x, residual, [caches])
    for width in (1, 5, 13):
        lane, parts = Caches(half.model, past=250), []
        for first in range(0, 24, width):
            parts.append(half.run(x[first : first + width], residual[first : first + width], [lane], threads=3))
            lane.past += len(parts[-1][0])
        for index, result in enumerate(whole):
            assert graphs.same_bits(np.concatenate([part[index] for part in parts]), result), width
        assert graphs.same_bits(lane.keys, caches.keys) and graphs.same_bits(lane.values, caches.values)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_lane_has_the_bits_that_it_has_alone(threads: int) -> None:
    half, pasts, widths = Half(Model(rotated=0), "bf16"), (0, 300, 7), [3, 0, 6]
    lanes = [Caches(half.model, past, seed=seed) for seed, past in enumerate(pasts)]
    alone = [lane.copy() for lane in lanes]
    x, residual = half.rows(9)
    norm, total = half.run(x, residual, lanes, widths=widths, threads=threads)
    for lane, first, width in ((0, 0, 3), (2, 3, 6)):
        rows = slice(first, first + width)
        results = half.run(x[rows], residual[rows], [alone[lane]])
        assert graphs.same_bits(norm[rows], results[0]) and graphs.same_bits(total[rows], results[1])
        assert graphs.same_bits(lanes[lane].keys, alone[lane].keys)


def test_each_variant_gives_the_bits_of_the_reference(variant: str) -> None:
    half = Half(Model(), "4 bits", "bf16")
    x, residual = half.rows(7)
    result = half.run(x, residual, [Caches(half.model, 20)])
    specc_kernels.limit("scalar")
    reference = half.run(x, residual, [Caches(half.model, 20)])
    specc_kernels.limit(variant)
    assert all(graphs.same_bits(a, b) for a, b in zip(result, reference, strict=True))


def test_a_residual_needs_a_norm() -> None:
    half = Half(Model(), "fp32")
    x, residual = half.rows(2)
    half.norm = np.zeros(COLUMNS + 1, np.float32)
    with pytest.raises(Exception, match="the weights of the norm have the shape"):
        half.run(x, residual, [Caches(half.model, 0)])


def test_a_size_of_heads_that_does_not_fit_is_refused_in_one_line() -> None:
    half = Half(Model(), "fp32")
    x, residual = half.rows(2)
    with pytest.raises(Exception, match="specc::ProjectedAttention: the weights have the shape"):
        half.run(x, residual, [Caches(half.model, 0)], num_heads=4)
