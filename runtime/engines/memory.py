"""A check that engines fit in this machine's memory, before anything is loaded."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Sequence
from math import prod
from pathlib import Path

from ..bundle import Bundle
from ..errors import BackendError
from ..manifest import SIZES, EngineSpec, Tensor

CGROUP = Path("/sys/fs/cgroup")
# Files of a control group, of version 2 and of version 1: the limit, the use, and the part of the use that is cached
# files, as memory.stat names it.
GROUPS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def check(bundle: Bundle, engines: Sequence[EngineSpec], residents: Sequence[EngineSpec]) -> None:
    """Check that engines fit in memory beside those that are loaded.

    The least that they can take is counted: each weights file once, each cache once, and the arrays of inputs and
    outputs. If this machine does not say what is free, everything passes.

    Args:
        bundle: whose engines.
        engines: what will be loaded.
        residents: engines that are in memory already.

    Raises:
        BackendError: they do not fit. The message says what each part takes.
    """
    weights = sum(bundle.manifest.files[f].bytes for f in _files(bundle, engines) - _files(bundle, residents))
    rows = sum(bundle.manifest.caches[name].bytes for name in _caches(engines) - _caches(residents))
    bound = sum(array_bytes(t) for e in engines for t in (*e.inputs, *e.outputs))
    needed, free = weights + rows + bound, free_memory()
    if free is not None and needed > free:
        widest = max(engines, key=lambda e: e.block.slots)
        raise BackendError(
            f"{bundle.path} needs {_mib(needed)} of memory (weights {_mib(weights)}, rows {_mib(rows)}, outputs "
            f"{_mib(bound)}, of up to {widest.block.slots} slots) and {_mib(max(0, free))} are free; "
            "free some, or compile with a smaller --max-seq-len, shorter drafts, or --dtype int4"
        )


def _files(bundle: Bundle, engines: Sequence[EngineSpec]) -> set[str]:
    """Return the weights files of engines."""
    return {e.weights or bundle.manifest.weights for e in engines}


def _caches(engines: Sequence[EngineSpec]) -> set[str]:
    """Return the names of the engines' caches."""
    return {e.block.store for e in engines}


def array_bytes(tensor: Tensor) -> int:
    """Return the bytes of a tensor's array; 0 for a part of a cache, which is counted with the cache."""
    cached = tensor.name.startswith(("past_key_values.", "present."))
    return 0 if cached else prod(tensor.shape) * SIZES[tensor.dtype]


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def free_memory() -> int | None:
    """Return the bytes that this process may still take, by the machine and its control group; None if neither says."""
    free = []
    with contextlib.suppress(OSError, KeyError):
        numbers = _numbers(Path("/proc/meminfo"))
        free.append((numbers["MemAvailable:"] + numbers["SwapFree:"]) * 1024)
    for limit, used, cached in GROUPS:
        with contextlib.suppress(OSError, ValueError, KeyError):
            # The kernel gives cached files back before it refuses memory.
            reclaimable = _numbers((CGROUP / used).with_name("memory.stat"))[cached]
            free.append(int((CGROUP / limit).read_text()) - int((CGROUP / used).read_text()) + reclaimable)
    return min(free, default=None)


def _numbers(file: Path) -> dict[str, int]:
    """Read a file of lines that each have a name and a number."""
    numbers = {}
    for line in file.read_text().splitlines():
        name, number, *_ = line.split()
        numbers[name] = int(number)
    return numbers


def trim() -> None:
    """Give memory that was freed back to the operating system. Only glibc can; elsewhere nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
