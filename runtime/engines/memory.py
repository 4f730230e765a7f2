"""Whether what is to be loaded fits in this machine's memory, before anything is."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

from ..bundle import Bundle
from ..errors import BackendError
from ..manifest import SIZES, EngineSpec, Tensor

CGROUP = Path("/sys/fs/cgroup")
GROUPS = (  # of version 2 and 1: the limit, what is used, and the part of that which is cached files
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


def check(bundle: Bundle, engines: Sequence[EngineSpec], loaded: Sequence[EngineSpec]) -> None:
    """Raises BackendError where `engines` do not fit beside those `loaded`.

    Counted is what cannot be less: each weights file once, each cache's rows once, and what engines are bound to.
    """
    files, held = ({e.weights or bundle.manifest.weights for e in some} for some in (engines, loaded))
    weights = sum(bundle.manifest.files[name].bytes for name in files - held)
    caches, begun = ({e.block.cache for e in some} for some in (engines, loaded))
    rows = sum(bundle.manifest.caches[name].bytes for name in caches - begun)
    bound = sum(_bytes(t) for e in engines for t in (*e.inputs, *e.outputs))
    needed, free = weights + rows + bound, free_memory()
    if free is not None and needed > free:
        widest = max(engines, key=lambda e: e.block.slots)
        raise BackendError(
            f"{bundle.path} needs {_mib(needed)} of memory (weights {_mib(weights)}, rows {_mib(rows)}, outputs "
            f"{_mib(bound)}, of up to {widest.block.slots} slots) and {_mib(max(0, free))} are free; "
            "free some, or compile with a smaller --max-seq-len, shorter drafts, or --dtype int4"
        )


def _bytes(tensor: Tensor) -> int:
    """Rows are counted with their cache."""
    cached = tensor.name.startswith(("past_key_values.", "present."))
    return 0 if cached else prod(tensor.shape) * SIZES[tensor.dtype]


def _mib(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"


def free_memory() -> int | None:
    """Bytes that this process may still take, by the machine and by its control group; None where unknown."""
    free = []
    with contextlib.suppress(OSError, KeyError):
        known = _numbers(Path("/proc/meminfo"))
        free.append((known["MemAvailable:"] + known["SwapFree:"]) * 1024)
    for limit, used, cached in GROUPS:
        with contextlib.suppress(OSError, ValueError, KeyError):
            freed = _numbers((CGROUP / used).with_name("memory.stat"))[cached]  # what the kernel gives back first
            free.append(int((CGROUP / limit).read_text()) - int((CGROUP / used).read_text()) + freed)
    return min(free, default=None)


def _numbers(file: Path) -> dict[str, int]:
    return {name: int(number) for name, number, *_ in map(str.split, file.read_text().splitlines())}
