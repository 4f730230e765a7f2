"""ArgMax against numpy and the reference."""

from __future__ import annotations

import numpy as np
import operator_graphs as graphs
import pytest
import specc_kernels
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

examples = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
RARE = (0.0, -0.0, 3.0, np.inf, -np.inf, np.nan)


def argmax(x: np.ndarray, threads: int = 1) -> np.ndarray:
    return graphs.run(graphs.session("ArgMax", {"x": x}, {}, ["y"], threads, TensorProto.INT64), x)


@given(rows=st.integers(1, 20), count=st.integers(1, 3000), seed=st.integers(0, 999))
@examples
def test_it_is_the_first_of_the_largest_values(variant: str, rows: int, count: int, seed: int) -> None:
    """Small whole numbers, so that many are equal."""
    x = np.random.default_rng(seed).integers(-9, 9, (rows, count)).astype(np.float32)
    assert argmax(x).tolist() == x.argmax(-1).tolist()


@given(values=st.lists(st.sampled_from(RARE), min_size=1, max_size=200))
@examples
def test_values_that_are_no_number_and_infinities_count_as_in_the_reference(variant: str, values: list[float]) -> None:
    x = np.array([values], np.float32)
    numbers = np.where(np.isnan(x), -np.inf, x)
    result = argmax(x)
    assert result.tolist() == numbers.argmax(-1).tolist()
    specc_kernels.limit("scalar")
    assert argmax(x).tolist() == result.tolist()
    specc_kernels.limit(variant)


@pytest.mark.parametrize("shape", [(2, 3, 49152), (49152,), (0, 8)])
def test_rows_keep_their_axes_and_are_shared_by_threads(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    result = argmax(x, threads=3)
    assert result.dtype == np.int64 and np.array_equal(result, x.argmax(-1))


def test_a_row_without_values_is_an_error() -> None:
    with pytest.raises(Exception, match=r"ArgMax: the logits have the shape \[2, 0\]; \[\.\., n\] is needed"):
        argmax(np.zeros((2, 0), np.float32))
