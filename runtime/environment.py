"""Every environment variable that specc reads, beside those of its libraries.

    SPECC_CACHE               directory of the caches, or off. Default: specc in XDG_CACHE_HOME, or in ~/.cache
    SPECC_CACHE_SIZE          bytes that all caches may take together, such as 8G. Default: 20G
    SPECC_THREADS             threads of one engine, 1 to 1024. Default: the processors that this process may use
    SPECC_CUDA_GRAPHS         off runs engines on a GPU without captured graphs. Default: on
    SPECC_KERNELS_DISABLE     variants of specc-kernels that it does not use, with commas (read by the library itself)
    SPECC_TELEMETRY           1 leaves ONNX Runtime's telemetry on. Default: it is off (engines/onnx_runtime.py)
    SPECC_ONNXRUNTIME         ONNX Runtime's library for the runtimes in C and Node (read by libspecc itself)
    SPECC_OPENVINO_PRECISION  f32 or bf16, in which OpenVINO's plug-in computes. Default: f32

Variables are read at each call, so a program may change them between two sessions.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from .errors import BackendError

CACHE_BYTES = 20 * 10**9
UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
PRECISIONS = ("f32", "bf16")
MOST_THREADS = 1024  # each takes memory, and no machine of today runs so many at once


class CacheOffError(OSError):
    """An attempt to use a cache while SPECC_CACHE is off."""


def cache_root() -> Path:
    """Return the directory of the caches, which need not exist.

    Raises:
        CacheOffError: SPECC_CACHE is off.
        OSError: no variable names a directory, and this user has no home.
    """
    root = os.environ.get("SPECC_CACHE")
    if root == "off":
        raise CacheOffError("SPECC_CACHE is off")
    if root:
        return Path(root)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "specc"
    try:
        return Path.home() / ".cache" / "specc"
    except RuntimeError as e:  # There is neither HOME nor an entry in passwd, as in some containers.
        raise FileNotFoundError(errno.ENOENT, "this user has no home directory") from e


def cache_size() -> int:
    """Return how many bytes all caches may take together.

    Raises:
        BackendError: SPECC_CACHE_SIZE is not a size.
    """
    size = os.environ.get("SPECC_CACHE_SIZE") or str(CACHE_BYTES)
    number, unit = (size[:-1], UNITS[size[-1]]) if size[-1] in UNITS else (size, 1)
    if not (number.isascii() and number.isdecimal()):
        raise BackendError(f"SPECC_CACHE_SIZE is {size!r}; give bytes, such as 8000000000 or 8G")
    return int(number) * unit


def threads() -> int:
    """Return the number of threads that one engine may take if the session names no number of its own.

    Raises:
        BackendError: SPECC_THREADS is not a whole number from 1 to MOST_THREADS.
    """
    count = os.environ.get("SPECC_THREADS") or str(len(os.sched_getaffinity(0)))
    if not (count.isascii() and count.isdecimal() and len(count) < 10 and 1 <= int(count) <= MOST_THREADS):
        raise BackendError(f"SPECC_THREADS is {count!r}; give a whole number from 1 to {MOST_THREADS}")
    return int(count)


def switch_telemetry_off() -> None:
    """Tell ONNX Runtime, before it is imported, to send and store nothing about its use."""
    if os.environ.get("SPECC_TELEMETRY") != "1":
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def cuda_graphs() -> bool:
    """Return whether an engine on a GPU may capture its launches as a graph."""
    return os.environ.get("SPECC_CUDA_GRAPHS") != "off"


def openvino_precision() -> str:
    """Return the type in which OpenVINO's plug-in computes.

    Raises:
        BackendError: SPECC_OPENVINO_PRECISION is not f32 or bf16.
    """
    precision = os.environ.get("SPECC_OPENVINO_PRECISION", "f32")
    if precision not in PRECISIONS:
        raise BackendError(f"SPECC_OPENVINO_PRECISION is {precision!r}; give {' or '.join(PRECISIONS)}")
    return precision
