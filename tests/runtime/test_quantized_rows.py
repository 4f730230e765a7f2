"""The copy of a cache's older rows in 4 bits."""

from __future__ import annotations

import numpy as np
import pytest

from specc.runtime.quantized_rows import PARTS, QuantizedRows, part_shapes, rounded

GROUP, CAPACITY = 4, 22
NAMES = ["0.key", "0.value", "1.key", "1.value"]


def random_rows() -> np.ndarray:
    """Return random rows [4 tensors, 2 heads, capacity, 6]; each key has a channel that is far larger than others."""
    rows = np.random.default_rng(0).standard_normal((len(NAMES), 2, CAPACITY, 6)).astype(np.float32)
    rows[::2, ..., 3] = 40 + 10 * rows[::2, ..., 3]
    return rows


def widened(copy: QuantizedRows, name: str) -> np.ndarray:
    """Return the rows that the parts of a tensor's copy stand for, [2 heads, whole groups of rows, 6]."""
    codes, scales, least = (copy.values[name][part][0] for part in PARTS)
    numbers = np.concatenate([codes & 15, codes >> 4], -1).astype(np.float32)
    grouped = numbers.reshape(2, -1, GROUP, 6) * scales + least
    result: np.ndarray = grouped.reshape(2, -1, 6)
    return result


def test_a_number_is_wrong_by_half_a_scale_at_most() -> None:
    rows = random_rows()
    copy = QuantizedRows(NAMES, rows, GROUP)
    assert copy.follow(CAPACITY) == 16
    for number, name in enumerate(NAMES):
        exact = rows[number, :, :16]
        groups = exact.reshape(2, 4, GROUP, 6)
        axis = 2 if name.endswith("key") else 3  # Keys are rounded channel by channel, values row by row.
        scale = (groups.max(axis, keepdims=True) - groups.min(axis, keepdims=True)) / 15
        wrong = np.abs(widened(copy, name)[:, :16].reshape(groups.shape) - groups)
        assert (wrong <= 0.5001 * scale + 1e-6).all() and wrong.max() > 0.2 * scale.max()


@pytest.mark.parametrize("axis", [2, 3])
def test_rows_that_are_all_equal_stay_as_they_are(axis: int) -> None:
    codes, scales, least = rounded(np.full((1, 1, 8, 4), 3.5, np.float32), GROUP, axis)
    assert not codes.any() and np.all(scales > 0) and np.all(least == 3.5)


@pytest.mark.parametrize(("rows", "count"), [(0, 0), (4, 0), (7, 0), (8, 4), (11, 4), (12, 8), (CAPACITY, 16)], ids=str)
def test_one_group_of_the_newest_rows_has_no_codes_at_least(rows: int, count: int) -> None:
    assert QuantizedRows(NAMES, random_rows(), GROUP).follow(rows) == count


def test_a_rollback_never_touches_the_rounded_rows() -> None:
    """QuantSpec's own test: a rejected draft leaves the newest rows only, and these have no codes."""
    rows = random_rows()
    copy = QuantizedRows(NAMES, rows, GROUP)
    copy.follow(13)
    before = {name: widened(copy, name).copy() for name in NAMES}
    for accepted in (12, 13):
        rows[:, :, accepted:] = 7  # What a step leaves behind its accepted rows.
        copy.rewind(accepted)
        assert copy.count == copy.follow(accepted) == 8
    assert all(np.array_equal(before[name], widened(copy, name)) for name in NAMES)


def test_another_text_gets_codes_of_its_own() -> None:
    rows = random_rows()
    copy = QuantizedRows(NAMES, rows, GROUP)
    copy.follow(CAPACITY)
    copy.rewind(9)
    assert copy.count == 4
    rows[:, :, 4:] *= 2
    copy.follow(16)
    fresh = QuantizedRows(NAMES, rows, GROUP)
    fresh.follow(16)
    assert all(np.array_equal(widened(copy, name)[:, :12], widened(fresh, name)[:, :12]) for name in NAMES)


def test_the_parts_have_the_shapes_that_engines_expect() -> None:
    copy = QuantizedRows(NAMES, random_rows(), GROUP)
    for name in NAMES:
        for part, (dtype, shape) in part_shapes(name[2:], 2, CAPACITY, 6, GROUP).items():
            array = copy.values[name][part]
            assert array.shape == shape and array.dtype == dtype
            assert array.flags.c_contiguous
