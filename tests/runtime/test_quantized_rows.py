"""The copy of a cache's older rows in 4 and 8 bits."""

from __future__ import annotations

import numpy as np
import pytest

from specc.runtime.quantized_rows import LOWER, PARTS, QuantizedRows, part_shapes, rounded

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


def eight_bits(copy: QuantizedRows, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of 8 bits that the two halves are, and what these stand for, [2 heads, whole groups, 6]."""
    upper, lower = (unpacked(copy, name, part).astype(int) for part in ("codes", LOWER))
    numbers = 16 * upper + lower
    scales, least = (copy.values[name][part][0] / 16 for part in ("scales", "least"))
    grouped = (numbers.reshape(2, -1, GROUP, 6) - 7.5) * scales + 16 * least
    return numbers, grouped.reshape(2, -1, 6)


def unpacked(copy: QuantizedRows, name: str, part: str) -> np.ndarray:
    """Return the numbers of 4 bits of a part, [2 heads, whole groups, 6]."""
    packed = copy.values[name][part][0]
    return np.concatenate([packed & 15, packed >> 4], -1)


def test_quantspec_both_halves_are_one_number_of_8_bits_of_which_the_draft_reads_the_upper_one() -> None:
    """QuantSpec's own test: the upper halves are what the copy in 4 bits has, and both are 16 times as fine."""
    rows = random_rows()
    both, coarse = QuantizedRows(NAMES, rows, GROUP), QuantizedRows(NAMES, rows, GROUP)
    both.keep_lower()
    assert both.follow(CAPACITY) == coarse.follow(CAPACITY) == 16
    for number, name in enumerate(NAMES):
        numbers, fine = eight_bits(both, name)
        assert np.array_equal(numbers >> 4, unpacked(coarse, name, "codes"))
        assert numbers.min() >= 0 and numbers.max() <= 255 and len(np.unique(numbers)) > 60
        wrong = np.abs(fine - rows[number, :, :20])[:, :16].reshape(2, 4, GROUP, 6)
        assert (wrong <= 0.501 / 16 * both.values[name]["scales"][0][:, :4] + 1e-5).all()


def test_rows_that_have_codes_get_lower_halves_when_a_reader_of_8_bits_comes_later() -> None:
    rows = random_rows()
    copy, fresh = QuantizedRows(NAMES, rows, GROUP), QuantizedRows(NAMES, rows, GROUP)
    copy.follow(CAPACITY)
    copy.keep_lower()
    copy.follow(CAPACITY)
    halves = copy.values[NAMES[0]][LOWER]
    copy.keep_lower()
    fresh.keep_lower()
    fresh.follow(CAPACITY)
    assert copy.count == 16 and copy.values[NAMES[0]][LOWER] is halves
    for name in NAMES:
        assert np.array_equal(copy.values[name][LOWER], fresh.values[name][LOWER]) and fresh.values[name][LOWER].any()


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
    copy.keep_lower()
    assert LOWER not in part_shapes("key", 2, CAPACITY, 6, GROUP)
    for name in NAMES:
        for part, (dtype, shape) in part_shapes(name[2:], 2, CAPACITY, 6, GROUP, 8).items():
            array = copy.values[name][part]
            assert array.shape == shape and array.dtype == dtype
            assert array.flags.c_contiguous
