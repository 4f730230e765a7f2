"""Describe the machine that a measurement was made on, and read the memory of this process."""

from __future__ import annotations

import os
import platform
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

from specc.runtime.errors import SpeccWarning

BUSY = 0.75  # of the cores, in the mean over a minute


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A description of everything that a measured figure depends on.

    Attributes:
        cpu: the name of the processor.
        cores: how many cores this process may use.
        threads: how many threads an engine uses.
        memory_bytes: the physical memory of the machine, in bytes.
        system: the operating system and its version.
        python: the version of Python.
        onnxruntime: the version of ONNX Runtime.
        gpu: the name of the GPU that computed; empty if none did.
    """

    cpu: str
    cores: int
    threads: int
    memory_bytes: int
    system: str
    python: str
    onnxruntime: str
    gpu: str = ""


def describe(gpu: str = "") -> Machine:
    """Describe the machine that this process runs on.

    Args:
        gpu: the name of the GPU that computes; empty if none does.
    """
    from specc.runtime.engines.onnx_runtime import ort
    from specc.runtime.engines.ort_cpu import session_options

    return Machine(
        cpu=_processor(),
        cores=len(os.sched_getaffinity(0)),
        threads=session_options().intra_op_num_threads,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        system=platform.platform(),
        python=platform.python_version(),
        onnxruntime=ort.__version__,
        gpu=gpu,
    )


def warn_if_busy() -> None:
    """Warn before a measurement if other programs take much of this machine, which makes figures unsteady."""
    load, cores = os.getloadavg()[0], len(os.sched_getaffinity(0))
    if load > BUSY * cores:
        warnings.warn(
            f"this machine is busy (load {load:.1f} on {cores} cores), so what is measured now may be far off; "
            "measure again when it is idle",
            SpeccWarning,
            stacklevel=2,
        )


def gpu_name() -> str:
    """Return the name of this machine's GPU, by its driver. Several kinds are all named; without a GPU it is empty."""
    return " or ".join(dict.fromkeys(ask_driver("name")))


def ask_driver(field: str) -> list[str]:
    """Ask NVIDIA's driver for a field of each GPU, such as "compute_cap"; nothing without a GPU or a driver."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return []
    return [line.strip() for line in lines if line.strip()]


def memory() -> int | None:
    """Read the proportional set size of this process.

    A page that several processes map counts in equal parts for each of them.

    Returns:
        The size in bytes, or None if the system does not report it.
    """
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return kilobytes * 1024


def _processor() -> str:
    """Return the name of the processor, as detailed as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
