"""Memory of the host for rows: pages are committed as rows fill them."""

from __future__ import annotations

import contextlib
import mmap
import sys
from math import prod

import numpy as np
import numpy.typing as npt

COLLAPSE = 25  # MADV_COLLAPSE, of Linux 6.1: join small pages now. Python 3.11 has no name for it.


class HostArray:
    """An array of zeros, in small pages at first. Each is committed when it is first written.

    NumPy asks for huge pages. The heads of a cache lie far apart, so its first rows would then commit all of it.
    Elsewhere than on Linux, the memory is NumPy's.

    Attributes:
        values: the array.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Reserve the memory.

        Raises:
            MemoryError: it does not fit.
            ValueError: its size does not fit in 64 bits.
        """
        self.values: np.ndarray
        self._pages: mmap.mmap | None = None
        size = prod(shape) * np.dtype(dtype).itemsize
        if sys.platform != "linux" or not size:
            self.values = np.zeros(shape, dtype)
            return
        try:
            self._pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except OverflowError as e:
            raise ValueError(f"an array of {size} bytes is too large") from e
        except OSError as e:
            raise MemoryError(f"there is no room for an array of {size >> 20} MiB") from e
        self._advise(mmap.MADV_NOHUGEPAGE)
        self.values = np.frombuffer(self._pages, dtype).reshape(shape)

    def join_pages(self) -> None:
        """Turn small pages into huge ones, which commits all of the array and makes reads of many rows faster."""
        if sys.platform == "linux":
            self._advise(mmap.MADV_HUGEPAGE)
            self._advise(COLLAPSE)

    def _advise(self, advice: int) -> None:
        """Tell the kernel how the pages are used. A kernel without huge pages, or an old one, refuses the advice."""
        if self._pages is not None:
            with contextlib.suppress(OSError):
                self._pages.madvise(advice)
