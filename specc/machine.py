"""The machine that a measurement was made on, and the memory of this process."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


def describe() -> dict[str, Any]:
    """What a figure depends on: processor, cores, threads of an engine, memory, versions."""
    import onnxruntime

    from specc.runtime.engines.ort_cpu import session_options

    return {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": session_options().intra_op_num_threads,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def memory() -> int | None:
    """This process's proportional set size in bytes: pages that others map too count in part. None where unknown."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
