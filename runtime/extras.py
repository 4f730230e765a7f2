"""Say what pip must install for a part of specc: a package of the index, or the folder that specc was installed from.

Messages call these functions when they are written, so that a start of specc reads no notes of installed packages.
"""

from __future__ import annotations

import json
import shlex
from functools import lru_cache
from pathlib import Path

NAME = "specc-compiler"
KERNELS = "kernels"  # a package of its own, in a folder of this name


def package(extra: str) -> str:
    """Return what stands behind `pip install` for an extra, such as `specc-compiler[compile]`."""
    folder, option = _source()
    if folder is None:
        return f"{NAME}[{extra}]"
    if extra == KERNELS:
        return shlex.quote(str(folder / KERNELS))
    return option + shlex.quote(f"{folder}[{extra}]")


def onnx_runtime() -> str:
    """Return the command that installs ONNX Runtime."""
    return f"pip install {package('cpu')}, or {package('gpu')} for an NVIDIA GPU: one of the two"


@lru_cache(1)
def _source() -> tuple[Path | None, str]:
    """Return the folder that specc was installed from, by PEP 610, and pip's option for it; None for an index."""
    # Only messages need these imports, which take some 30 ms.
    from importlib.metadata import Distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    # A build in a clone leaves an egg-info there, which has no such file and comes first if Python starts there.
    for installed in Distribution.discover(name=NAME):
        try:
            notes = json.loads(installed.read_text("direct_url.json") or "{}")
            url, info = urlsplit(notes.get("url", "")), notes.get("dir_info")
        except (OSError, ValueError, AttributeError):
            continue
        folder = Path(url2pathname(url.path))
        if url.scheme == "file" and isinstance(info, dict) and folder.is_dir():
            return folder, "-e " if info.get("editable") else ""
    return None, ""
