"""GatedMLP against the reference, numpy, and itself at other widths."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import operator_graphs as graphs
import pytest
import specc_kernels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

EPSILON = 1e-5
SIZES = (40, 70, 37)  # k, hidden, columns
each_kind = pytest.mark.parametrize("kind", graphs.KINDS)
examples = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Network:
    """Weights of one kind, and the norm behind them."""

    def __init__(self, kind: str, k: int, hidden: int, columns: int, down: str | None = None) -> None:
        self.k, self.hidden, self.columns = k, hidden, columns
        shapes = [(kind, k, hidden), (kind, k, hidden), (down or kind, hidden, columns)]
        self.matrices = [graphs.matrix(*shape, seed=seed) for seed, shape in enumerate(shapes)]
        rng = np.random.default_rng(columns)
        self.norm = rng.standard_normal(columns).astype(np.float32)

    def session(self, with_norm: bool = True, threads: int = 1, **attributes: int) -> ort.InferenceSession:
        inputs = {"x": np.zeros((1, self.k), np.float32)}
        values = inputs | {"r": np.zeros((1, self.columns), np.float32) if with_norm else None}
        weights = {"n": self.norm if with_norm else None}
        weights |= {f"{m}{i}": part for m, matrix in enumerate(self.matrices) for i, part in enumerate(matrix.inputs)}
        sizes = {"hidden": self.hidden, "columns": self.columns} | attributes
        outputs = ["y", "sum"] if with_norm else ["y"]
        return graphs.session("GatedMLP", values, weights, outputs, threads, **sizes, epsilon=EPSILON)

    def product(self, x: np.ndarray) -> np.ndarray:
        """Run the network without a norm."""
        return self.session(with_norm=False).run(None, {"x": x})[0]

    def rows(self, count: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(count)
        return {
            "x": rng.standard_normal((count, self.k), np.float32),
            "r": rng.standard_normal((count, self.columns), np.float32),
        }


def bits_of(results: list[np.ndarray], others: list[np.ndarray]) -> bool:
    return all(graphs.same_bits(a, b) for a, b in zip(results, others, strict=True))


@given(
    kind=st.sampled_from(graphs.KINDS),
    down=st.sampled_from(graphs.KINDS),
    sizes=st.tuples(*[st.integers(1, 100)] * 3),
    rows=st.integers(1, 64),
)
@examples
def test_each_variant_gives_the_bits_of_the_reference(
    variant: str, kind: str, down: str, sizes: tuple[int, int, int], rows: int
) -> None:
    network = Network(kind, *sizes, down=down)
    session, feeds = network.session(), network.rows(rows)
    result = session.run(None, feeds)
    specc_kernels.limit("scalar")
    reference = session.run(None, feeds)
    specc_kernels.limit(variant)
    assert bits_of(result, reference)


@each_kind
def test_the_reference_is_the_network(kind: str) -> None:
    network = Network(kind, *SIZES)
    feeds = network.rows(9)
    x, residual = (feeds[name].astype(np.float64) for name in ("x", "r"))
    gate, up, down = (matrix.values for matrix in network.matrices)
    gates = x @ gate
    expected = residual + (gates / (1 + np.exp(-gates)) * (x @ up)) @ down
    norm = expected / np.sqrt((expected**2).mean(-1, keepdims=True) + EPSILON) * network.norm
    tolerance = 2e-5 if kind in ("fp32", "bf16") else 0.05  # activations in 8 bits
    y, total = network.session().run(None, feeds)
    assert np.abs(total - expected).max() <= tolerance * np.abs(expected).max()
    assert np.abs(y - norm).max() <= tolerance * np.abs(norm).max()


@each_kind
def test_a_row_is_the_same_at_every_width_and_number_of_threads(kind: str, variant: str) -> None:
    network = Network(kind, 96, 500, 200)
    feeds = network.rows(64)
    alone, session = network.session(), network.session(threads=3)
    rows = [alone.run(None, {name: value[i : i + 1] for name, value in feeds.items()}) for i in range(64)]
    for width in (1, 2, 5, 13, 24, 64):
        result = session.run(None, {name: value[:width] for name, value in feeds.items()})
        assert bits_of(result, [np.concatenate([row[i] for row in rows[:width]]) for i in range(2)]), width


@each_kind
def test_the_sum_is_the_product_and_the_residual(kind: str) -> None:
    network = Network(kind, *SIZES)
    feeds = network.rows(5)
    product = network.product(feeds["x"])
    _, total = network.session().run(None, feeds)
    assert graphs.same_bits(total, product + feeds["r"])


@each_kind
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_its_row_and_no_other(kind: str, variant: str, special: float) -> None:
    network = Network(kind, *SIZES)
    session, feeds = network.session(), network.rows(9)
    clean = session.run(None, feeds)
    feeds["x"][4, 11] = special
    result = session.run(None, feeds)
    assert bits_of([np.delete(array, 4, 0) for array in result], [np.delete(array, 4, 0) for array in clean])
    assert not np.isfinite(result[1][4]).any()


def test_large_gates_pass_and_small_ones_close(variant: str) -> None:
    """One value in each matrix: silu(x) * x, from where exp overflows on both sides."""
    network = Network("fp32", 1, 1, 1)
    ones = np.ones((1, 1), np.float32)
    network.matrices = [graphs.Matrix([graphs.pack.f32(ones), *[None] * 4], ones)] * 3
    x = np.array([[-200.0], [-90.0], [-1.0], [0.0], [1.0], [90.0], [200.0]], np.float32)
    y = network.product(x)
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(
            y, x.astype(np.float64) ** 2 / (1 + np.exp(-x.astype(np.float64))), rtol=1e-6, atol=1e-30
        )


@each_kind
def test_biases_are_added_to_the_products(kind: str) -> None:
    plain, network = Network(kind, *SIZES), Network(kind, *SIZES)
    bias = np.linspace(-1, 1, 37).astype(np.float32)
    network.matrices[2] = network.matrices[2].with_bias(bias)
    feeds = network.rows(5)
    assert graphs.same_bits(network.product(feeds["x"]), plain.product(feeds["x"]) + bias)
    network.matrices[0] = network.matrices[0].with_bias(np.full(70, -200, np.float32))  # closes every gate
    assert np.abs(network.product(feeds["x"]) - bias).max() < 1e-6


def test_no_rows_give_no_rows() -> None:
    network = Network("bf16", *SIZES)
    assert [array.shape for array in network.session().run(None, network.rows(0))] == [(0, 37), (0, 37)]


def test_gate_and_up_of_two_forms_are_refused_in_one_line() -> None:
    network = Network("fp32", *SIZES)
    network.matrices[1] = graphs.matrix("bf16", 40, 70)
    with pytest.raises(Exception, match="specc::GatedMLP: gate and up stand in panels of two forms"):
        network.session().run(None, network.rows(1))


def test_weights_of_another_shape_are_refused_in_one_line() -> None:
    network = Network("bf16", *SIZES)
    network.matrices[2] = graphs.matrix("bf16", 68, 37)
    with pytest.raises(Exception, match=r"specc::GatedMLP: the weights have the shape .* is needed"):
        network.session().run(None, network.rows(1))


def test_sizes_must_be_positive() -> None:
    with pytest.raises(Exception, match="hidden is 0; it must be positive"):
        Network("fp32", *SIZES).session(hidden=0)
