"""What pip installs for a part of specc: by its name on the index, or from the folder that specc was installed from."""

from __future__ import annotations

import json
import shlex
from functools import lru_cache
from importlib.metadata import Distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

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


@lru_cache(1)
def _source() -> tuple[Path | None, str]:
    """Return the folder that specc was installed from, by PEP 610, and pip's option for it; None for an index."""
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
