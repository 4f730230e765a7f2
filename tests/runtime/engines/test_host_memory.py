"""Arrays of the host: pages are committed as they are written, and are joined on demand."""

from __future__ import annotations

import mmap
import os
import sys
from math import ceil
from typing import ClassVar

import numpy as np
import pytest
from resident import resident

from specc.runtime.engines.host_memory import HostArray
from specc.runtime.engines.ort_cpu import JOINED_OVER, SMALL_PAGES, HostKV
from specc.runtime.manifest import CacheSpec

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the memory is NumPy's")
CAPACITY, LAYERS, HEADS, SIZE = 4096, 16, 2, 64


def test_an_array_is_zero_and_can_be_written() -> None:
    array = HostArray((3, 5), np.float32)
    assert array.values.shape == (3, 5) and array.values.dtype == np.float32 and not array.values.any()
    array.values[1, 2] = 4
    assert array.separate == array.join_pages(1) == 0  # It is smaller than a huge page.
    assert array.values.sum() == array.values[1, 2] == 4


def test_an_array_without_elements_is_one() -> None:
    array = HostArray((0, 5), np.int64)
    assert array.values.shape == (0, 5) and array.join_pages(1) == 0


def test_a_system_of_another_kind_gets_the_memory_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    array = HostArray((2, 3), np.float16)
    assert array.join_pages(1) == 0
    assert array.values.flags.owndata or array.values.base is None
    assert not array.values.any()


@ON_LINUX
def test_a_kernel_that_refuses_advice_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(mmap.mmap):
        def madvise(self, *_: int) -> None:
            raise OSError("Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Stubborn)
    array = HostArray((1 << 20,), np.int64)
    array.values[:] = 3
    array.join_pages(array.separate)
    assert array.values.sum() == 3 << 20


@ON_LINUX
def test_memory_that_is_not_there_is_an_error() -> None:
    with pytest.raises(MemoryError, match="no room for an array of 1099511627776 MiB"):
        HostArray((2**60,), np.int8)
    with pytest.raises(ValueError, match="too large"):
        HostArray((2**80,), np.int8)


@ON_LINUX
def test_rows_are_committed_as_they_are_filled_until_many_are() -> None:
    before = resident()
    store = HostKV(CacheSpec(CAPACITY, {str(layer): (HEADS, SIZE) for layer in range(LAYERS)}))
    (array,) = store.arrays
    stretches, row = 2 * LAYERS * HEADS, SIZE * array.itemsize  # Rows of a head lie side by side.
    filled = 100
    array[:, :, :filled] = 1
    store.commit(0, range(filled))
    page = os.sysconf("SC_PAGE_SIZE")
    assert filled * row * stretches <= resident() - before < (filled * row + 2 * page) * stretches + 2**20
    many = int(CAPACITY * SMALL_PAGES) + 1
    array[:, :, filled:many] = 1
    store.commit(filled, range(many - filled))
    assert array[:, :, :many].all() and not array[:, :, many:].any()
    assert many * row * stretches <= resident() - before <= array.nbytes + 2**20


@ON_LINUX
def test_pages_are_joined_part_by_part_and_the_values_stay() -> None:
    array = HostArray((4 << 20,), np.float64)
    array.values[:] = np.arange(4 << 20)
    pages = array.separate
    assert pages in (15, 16)  # Of 2 MiB each; the first one may begin within the memory.
    assert array.join_pages(3) == 3 and array.separate == pages - 3
    assert array.join_pages(100) == pages - 3 and array.separate == array.join_pages(1) == 0
    assert (array.values == np.arange(4 << 20)).all()


class Counted(HostArray):
    """Memory that counts how many huge pages each call made."""

    counts: ClassVar[list[int]] = []

    def join_pages(self, count: int) -> int:
        """Make some, and keep how many."""
        pages = super().join_pages(count)
        self.counts.append(pages)
        return pages


@ON_LINUX
@pytest.mark.parametrize("width", [1, 24, 512])
def test_a_commit_joins_no_more_pages_than_its_rows_pay_for(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counted, "counts", [])
    store = HostKV(CacheSpec(CAPACITY, {str(layer): (HEADS, SIZE) for layer in range(LAYERS)}), Counted)
    pages = store.arrays[0].nbytes >> 21
    share = pages / (JOINED_OVER * CAPACITY)
    for start in range(0, CAPACITY // 2, width):
        store.commit(start, range(width))
        if start + width <= SMALL_PAGES * CAPACITY:
            assert not Counted.counts
    assert all(count <= ceil(share * width) for count in Counted.counts)
    assert sum(Counted.counts) in (pages - 1, pages)


@ON_LINUX
def test_a_store_knows_how_much_memory_it_has_not_taken() -> None:
    store = HostKV(CacheSpec(CAPACITY, {str(layer): (HEADS, SIZE) for layer in range(LAYERS)}))
    whole = store.spec.bytes
    assert store.uncommitted == whole
    store.commit(0, range(CAPACITY // 8))
    assert store.uncommitted == whole * 7 // 8
    store.commit(0, range(10))  # Another text takes fewer rows of memory that is there.
    assert store.uncommitted == whole * 7 // 8
    other = HostKV(store.spec)
    assert other.copy(store, CAPACITY // 4) and other.uncommitted == whole * 3 // 4
    store.commit(CAPACITY // 8, range(CAPACITY // 2))
    assert store.uncommitted == 0  # All pages are joined.
