"""LinearNBits against the reference, numpy, and itself at other widths."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnxruntime as ort
import operator_graphs as graphs
import pytest
import specc_kernels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from specc_kernels import pack

examples = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(kw_only=True)
class Weights:
    """Random weights of one kind, packed and dequantised."""

    k: int
    columns: int
    bits: int = 4
    block: int = 32
    half: bool = False
    zeros: bool = False
    offsets: bool = False
    tensors: dict[str, np.ndarray | None] = field(init=False)
    matrix: np.ndarray = field(init=False)  # fp32 [k, columns]

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.k + self.columns)
        blocks = -(-self.k // self.block)
        quants = rng.integers(0, 2**self.bits, (self.k, self.columns), np.uint8)
        scales = rng.random((blocks, self.columns), np.float32).astype(np.float16 if self.half else np.float32)
        points = np.full((blocks, self.columns), 2 ** (self.bits - 1), np.uint8)
        if self.zeros:
            points = rng.integers(0, 2**self.bits, (blocks, self.columns), np.uint8)
        self.tensors = {"w": pack.nbits(quants, self.bits, self.block), "s": pack.per_block(scales)}
        if self.zeros:
            self.tensors["z"] = pack.per_block(points)
        if self.offsets:  # they stand in the place of zero points
            points = np.zeros((blocks, self.columns), np.uint8)
            offsets = rng.standard_normal((blocks, self.columns), np.float32)
            self.tensors |= {"z": None, "o": pack.per_block(offsets)}
        repeated = [np.repeat(a.astype(np.float32), self.block, 0)[: self.k] for a in (points, scales)]
        self.matrix = (quants - repeated[0]) * repeated[1]
        if self.offsets:
            self.matrix += np.repeat(offsets, self.block, 0)[: self.k]

    def session(self, threads: int = 1) -> ort.InferenceSession:
        return graphs.linear(
            "LinearNBits", self.k, self.columns, self.tensors, threads, bits=self.bits, block_size=self.block
        )


POINTS = ({}, {"zeros": True}, {"offsets": True})
SIZES = [{"bits": bits, "block": block} for bits, block in ((4, 32), (4, 64), (8, 16), (8, 32), (8, 64))]
kinds = st.builds(
    lambda points, sizes, **kind: kind | sizes | points,
    points=st.sampled_from(POINTS),
    sizes=st.sampled_from(SIZES),
    half=st.booleans(),
)
each_kind = pytest.mark.parametrize(
    ("bits", "block", "half", "zeros"),
    [(4, 32, False, False), (4, 64, True, True), (8, 32, True, False), (8, 64, False, True), (8, 16, False, False)],
)


def activations(rows: int, k: int) -> np.ndarray:
    rng = np.random.default_rng(rows)
    return rng.standard_normal((rows, k), np.float32) * np.exp(rng.standard_normal((rows, 1), np.float32))


@given(kind=kinds, rows=st.integers(1, 64), k=st.integers(1, 200), columns=st.integers(1, 100))
@examples
def test_each_variant_gives_the_bits_of_the_reference(
    variant: str, kind: dict[str, int], rows: int, k: int, columns: int
) -> None:
    session, x = Weights(k=k, columns=columns, **kind).session(), activations(rows, k)
    result = graphs.run(session, x)
    specc_kernels.limit("scalar")
    reference = graphs.run(session, x)
    specc_kernels.limit(variant)
    assert graphs.same_bits(result, reference)


@given(kind=kinds, rows=st.integers(1, 64), k=st.integers(1, 200), columns=st.integers(1, 100))
@examples
def test_the_result_is_that_of_rounded_activations(kind: dict[str, int], rows: int, k: int, columns: int) -> None:
    weights, x = Weights(k=k, columns=columns, **kind), activations(rows, k)
    padded = np.pad(x, ((0, 0), (0, -k % weights.block))).reshape(rows, -1, weights.block)
    largest = np.abs(padded).max(2, keepdims=True)
    rounded = np.rint(padded * (np.float32(127) / largest)).astype(np.float64) * (largest / np.float32(127))
    exact = rounded.reshape(rows, -1)[:, :k] @ weights.matrix.astype(np.float64)
    bound = 1e-5 * (np.abs(x).astype(np.float64) @ np.abs(weights.matrix)) + 1e-6
    assert (np.abs(graphs.run(weights.session(), x) - exact) <= bound).all()


@each_kind
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_a_row_is_the_same_at_every_width_and_number_of_threads(
    variant: str, bits: int, block: int, half: bool, zeros: bool, threads: int
) -> None:
    weights = Weights(k=192, columns=500, bits=bits, block=block, half=half, zeros=zeros)
    x, alone = activations(64, 192), weights.session()
    rows = np.concatenate([graphs.run(alone, x[i : i + 1]) for i in range(64)])
    session = weights.session(threads)
    for width in range(1, 65):
        assert graphs.same_bits(graphs.run(session, x[:width]), rows[:width]), width


@each_kind
def test_the_largest_weights_and_activations_do_not_overflow(
    variant: str, bits: int, block: int, half: bool, zeros: bool
) -> None:
    k, top = 2 * block, 2**bits - 1
    tensors = {
        "w": pack.nbits(np.full((k, 40), top, np.uint8), bits, block),
        "s": pack.per_block(np.ones((2, 40), np.float16 if half else np.float32)),
    }
    if zeros:
        tensors["z"] = pack.per_block(np.zeros((2, 40), np.uint8))
    session = graphs.linear("LinearNBits", k, 40, tensors, bits=bits, block_size=block)
    for sign in (1, -1):
        x = np.full((3, k), sign * 127, np.float32)
        expected = sign * 127 * k * (top - (0 if zeros else 2 ** (bits - 1)))
        assert (graphs.run(session, x) == expected).all()


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_a_row_with_a_value_that_is_not_finite_is_nan_and_no_other_changes(variant: str, special: float) -> None:
    session, x = Weights(k=70, columns=40).session(), activations(9, 70)
    clean = graphs.run(session, x)
    x[4, 69] = special
    result = graphs.run(session, x)
    assert graphs.same_bits(np.delete(result, 4, 0), np.delete(clean, 4, 0))
    assert np.isnan(result[4]).all()


def test_blocks_of_zeros_and_of_tiny_values_give_zeros(variant: str) -> None:
    session = Weights(k=64, columns=40).session()
    for value in (0.0, -0.0, 1e-45, 1e-38, 1e-31):
        assert (graphs.run(session, np.full((2, 64), value, np.float32)) == 0).all(), value


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"bits": 5, "block_size": 32}, "bits is 5; give 4 or 8"),
        ({"bits": 4, "block_size": 16}, "block_size is 16; give 32 or 64, or 16 with 8 bits"),
    ],
)
def test_other_kinds_of_weights_are_refused(attributes: dict[str, int], message: str) -> None:
    with pytest.raises(Exception, match=message):
        graphs.linear("LinearNBits", 64, 40, Weights(k=64, columns=40).tensors, **attributes)


@pytest.mark.parametrize("name", ["w", "s", "z"])
def test_tensors_of_another_shape_are_refused_in_one_line(name: str) -> None:
    tensors = Weights(k=64, columns=40, zeros=True).tensors
    tensors[name] = tensors[name][:1]
    session = graphs.linear("LinearNBits", 64, 40, tensors, bits=4, block_size=32)
    with pytest.raises(Exception, match=r"specc::LinearNBits: the .* have the shape .* is needed"):
        graphs.run(session, np.zeros((1, 64), np.float32))


def test_a_row_with_offsets_is_the_same_at_every_width(variant: str) -> None:
    weights = Weights(k=192, columns=100, offsets=True)
    x, alone, session = activations(64, 192), weights.session(), weights.session(threads=3)
    rows = np.concatenate([graphs.run(alone, x[i : i + 1]) for i in range(64)])
    for width in (1, 2, 7, 8, 9, 31, 64):
        assert graphs.same_bits(graphs.run(session, x[:width]), rows[:width]), width


def test_zero_points_beside_offsets_are_refused() -> None:
    tensors = Weights(k=64, columns=40, zeros=True).tensors | {"o": pack.per_block(np.zeros((2, 40), np.float32))}
    session = graphs.linear("LinearNBits", 64, 40, tensors, bits=4, block_size=32)
    with pytest.raises(Exception, match="weights have zero points or offsets, not both"):
        graphs.run(session, np.zeros((1, 64), np.float32))
