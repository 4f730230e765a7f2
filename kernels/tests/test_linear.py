"""LinearBF16, LinearF32 and GatherBF16 against the reference, numpy, and themselves at other widths."""

from __future__ import annotations

import numpy as np
import operator_graphs as graphs
import pytest
import specc_kernels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from specc_kernels import pack

MAKERS = {"LinearBF16": graphs.bf16, "LinearF32": graphs.f32}
each_operator = pytest.mark.parametrize("operator", MAKERS)
shapes = st.tuples(st.integers(1, 64), st.integers(1, 130), st.integers(1, 130))
examples = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def arrays(rows: int, k: int, columns: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((rows, k), np.float32), rng.standard_normal((k, columns), np.float32)


@each_operator
@given(shape=shapes)
@examples
def test_each_variant_gives_the_bits_of_the_reference(operator: str, variant: str, shape: tuple[int, int, int]) -> None:
    x, w = arrays(*shape)
    session = MAKERS[operator](w)
    result = graphs.run(session, x)
    specc_kernels.limit("scalar")
    reference = graphs.run(session, x)
    specc_kernels.limit(variant)
    assert graphs.same_bits(result, reference)


@each_operator
@given(shape=shapes)
@examples
def test_the_reference_is_the_product(operator: str, shape: tuple[int, int, int]) -> None:
    x, w = arrays(*shape)
    rounded = pack.from_bf16(pack.to_bf16(w)) if operator == "LinearBF16" else w
    exact = x.astype(np.float64) @ rounded.astype(np.float64)
    bound = np.abs(x).astype(np.float64) @ np.abs(rounded) * shape[1] * 2.0**-24
    assert (np.abs(graphs.run(MAKERS[operator](w), x) - exact) <= bound + 1e-30).all()


@each_operator
@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_a_row_is_the_same_at_every_width_and_number_of_threads(operator: str, variant: str, threads: int) -> None:
    x, w = arrays(64, 192, 1000)
    alone = MAKERS[operator](w)
    rows = np.concatenate([graphs.run(alone, x[i : i + 1]) for i in range(64)])
    session = MAKERS[operator](w, threads)
    for width in range(1, 65):
        assert graphs.same_bits(graphs.run(session, x[:width]), rows[:width]), width


@each_operator
def test_no_rows_give_none(operator: str) -> None:
    session = MAKERS[operator](arrays(1, 8, 40)[1])
    assert graphs.run(session, np.zeros((0, 8), np.float32)).shape == (0, 40)


def test_rows_without_values_give_zeros() -> None:
    """The memory of the result held numbers before."""
    graphs.run(graphs.f32(arrays(8, 8, 40)[1]), arrays(8, 8, 40)[0])
    session = graphs.linear("LinearF32", 0, 40, {"w": np.zeros((2, 0, 32), np.float32)}, 1)
    assert graphs.same_bits(graphs.run(session, np.zeros((3, 0), np.float32)), np.zeros((3, 40), np.float32))


@each_operator
def test_rows_do_not_depend_on_where_they_stand(operator: str, variant: str) -> None:
    x, w = arrays(33, 65, 70)
    session, order = MAKERS[operator](w), np.random.default_rng(1).permutation(33)
    assert graphs.same_bits(graphs.run(session, x)[order], graphs.run(session, x[order]))


@each_operator
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_reaches_its_row_and_no_other(operator: str, variant: str, special: float) -> None:
    x, w = arrays(9, 37, 40)
    clean = graphs.run(MAKERS[operator](w), x)
    x[4, 11] = special
    result = graphs.run(MAKERS[operator](w), x)
    assert graphs.same_bits(np.delete(result, 4, 0), np.delete(clean, 4, 0))
    assert not np.isfinite(result[4]).any()


@each_operator
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_reaches_its_column_and_no_other(
    operator: str, variant: str, special: float
) -> None:
    x, w = arrays(9, 37, 40)
    clean = graphs.run(MAKERS[operator](w), x)
    w[36, 33] = special
    result = graphs.run(MAKERS[operator](w), x)
    assert graphs.same_bits(np.delete(result, 33, 1), np.delete(clean, 33, 1))
    assert not np.isfinite(result[:, 33]).any()


@each_operator
def test_activations_may_have_any_number_of_dimensions(operator: str) -> None:
    x, w = arrays(6, 20, 10)
    y = graphs.run(MAKERS[operator](w), x)
    for shape in ((1, 6, 20), (2, 3, 20), (6, 1, 1, 20)):
        values = {"x": np.zeros(shape, np.float32)}
        weights = {"w": pack.bf16(pack.to_bf16(w)) if operator == "LinearBF16" else pack.f32(w)}
        session = graphs.session(operator, values, weights, ["y"], columns=10)
        result = graphs.run(session, x.reshape(shape))
        assert result.shape == (*shape[:-1], 10)
        assert graphs.same_bits(result.reshape(6, 10), y)


def test_a_tensor_of_more_dimensions_than_the_operators_take_is_refused_in_one_line() -> None:
    x, w = arrays(1, 20, 10)
    session = graphs.session("LinearF32", {"x": x.reshape((1,) * 8 + (20,))}, {"w": pack.f32(w)}, ["y"], columns=10)
    with pytest.raises(Exception, match="a tensor has 9 dimensions; the operators take at most 8"):
        session.run(None, {"x": x.reshape((1,) * 8 + (20,))})


def test_weights_that_are_an_input_may_change_between_calls() -> None:
    x, first = arrays(3, 20, 10)
    second = first[::-1].copy()
    inputs = {"x": x, "w": pack.f32(first)}
    session = graphs.session("LinearF32", inputs, {}, ["y"], columns=10)
    for w in (first, second, first):  # Constants of a graph are read once. These are none.
        result = session.run(None, inputs | {"w": pack.f32(w)})[0]
        assert graphs.same_bits(result, graphs.run(graphs.f32(w), x))
    assert not graphs.same_bits(graphs.run(graphs.f32(first), x), graphs.run(graphs.f32(second), x))


@each_operator
def test_no_rows_give_no_rows(operator: str) -> None:
    x, w = arrays(0, 20, 10)
    assert graphs.run(MAKERS[operator](w), x).shape == (0, 10)


def test_gather_reads_the_rows_of_the_table_that_the_head_multiplies_by() -> None:
    table_VxK = pack.to_bf16(np.random.default_rng(0).standard_normal((70, 33), np.float32))
    ids = np.array([[0, 69, 33, 31, 32]])
    session = graphs.session("GatherBF16", {"ids": ids}, {"w": pack.bf16(table_VxK.T)}, ["y"], columns=70, k=33)
    assert graphs.same_bits(session.run(None, {"ids": ids})[0], pack.from_bf16(table_VxK)[ids])


@pytest.mark.parametrize("token", [-1, 70])
def test_gather_refuses_an_id_outside_the_table(token: int) -> None:
    table_VxK = pack.to_bf16(np.zeros((70, 33), np.float32))
    ids = np.array([[token]])
    session = graphs.session("GatherBF16", {"ids": ids}, {"w": pack.bf16(table_VxK.T)}, ["y"], columns=70, k=33)
    with pytest.raises(Exception, match=f"the id {token} is outside the table of 70 rows"):
        session.run(None, {"ids": ids})


@each_operator
def test_weights_of_another_shape_are_refused_in_one_line(operator: str) -> None:
    x, w = arrays(2, 20, 10)
    weights = {"w": pack.bf16(pack.to_bf16(w[:18])) if operator == "LinearBF16" else pack.f32(w[:18])}
    session = graphs.linear(operator, 20, 10, weights)
    with pytest.raises(Exception, match=rf"specc::{operator}: the weights have the shape .* is needed"):
        graphs.run(session, x)


@each_operator
def test_columns_must_be_positive(operator: str) -> None:
    _, w = arrays(2, 20, 10)
    weights = {"w": pack.bf16(pack.to_bf16(w)) if operator == "LinearBF16" else pack.f32(w)}
    with pytest.raises(Exception, match="columns is -1; it must be positive"):
        graphs.linear(operator, 20, -1, weights)
