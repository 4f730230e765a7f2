"""ONNX Runtime custom operators of the domain `specc`, in one shared library.

Register it with `SessionOptions.register_custom_ops_library(library_path())`. `pack` lays weights out for them.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache
from pathlib import Path
from typing import NamedTuple

__all__ = ["DOMAIN", "Description", "describe", "library_path", "limit", "operators", "variants"]

DOMAIN = "specc"
REMEDY = "install specc-kernels again, or unset SPECC_KERNELS_LIBRARY"


class Description(NamedTuple):
    """What the library holds and what this processor runs of it."""

    library: str
    operators: tuple[str, ...]
    built: tuple[str, ...]
    supported: tuple[str, ...]
    active: str


def library_path() -> str:
    """Find the shared library: SPECC_KERNELS_LIBRARY where it is set, or else the file beside this module.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file is not a whole shared library.
    """
    path = Path(os.environ.get("SPECC_KERNELS_LIBRARY") or Path(__file__).with_name("specc_kernels.so"))
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {REMEDY}")
    if not _is_whole(path):
        raise OSError(f"{path} is damaged or not a shared library; {REMEDY}")
    return str(path)


def operators() -> tuple[str, ...]:
    """List the operators of the domain `specc` that the library has."""
    return _split(library().specc_kernels_operators())


def variants(supported: bool = True) -> tuple[str, ...]:
    """List the variants, slowest first: those that this processor runs, or all that were built."""
    return _split(library().specc_kernels_variants(int(supported)))


def describe() -> Description:
    """Describe the library for `specc doctor`."""
    active = library().specc_kernels_active().decode()
    return Description(library_path(), operators(), variants(supported=False), variants(), active)


def limit(name: str) -> None:
    """Use no variant faster than `name`, for tests. No session may run meanwhile.

    Raises:
        ValueError: this processor runs no such variant.
    """
    if not library().specc_kernels_limit(name.encode()):
        raise ValueError(f"{name!r} is no variant that runs here; give one of {', '.join(variants())}")


@cache
def library() -> ctypes.CDLL:
    """Load the shared library. ONNX Runtime's copy of it is the same one, so `limit` reaches the operators.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: the file is not a whole shared library, or not that of specc-kernels.
    """
    path = library_path()
    handle = ctypes.CDLL(path)
    if not hasattr(handle, "specc_kernels_operators"):
        raise OSError(f"{path} is not the library of specc-kernels; {REMEDY}")
    handle.specc_kernels_operators.restype = ctypes.c_char_p
    handle.specc_kernels_variants.restype = ctypes.c_char_p
    handle.specc_kernels_active.restype = ctypes.c_char_p
    handle.specc_kernels_limit.argtypes = [ctypes.c_char_p]
    return handle


def _is_whole(path: Path) -> bool:
    """Check that a file has an ELF header and reaches to the end of its section table, which stands last.

    A loader that maps a shorter file ends the process by a bus error.
    """
    with path.open("rb") as file:
        header = file.read(64)
    if len(header) < 64 or header[:5] != b"\x7fELF\x02":
        return False
    start: int
    size: int
    count: int
    (start,) = struct.unpack_from("<Q", header, 40)
    size, count = struct.unpack_from("<HH", header, 58)
    return path.stat().st_size >= start + size * count


def _split(names: bytes) -> tuple[str, ...]:
    return tuple(names.decode().split(",")) if names else ()
