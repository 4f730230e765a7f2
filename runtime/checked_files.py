"""The files of a bundle that this machine has checked already, and need not be read again."""

from __future__ import annotations

import contextlib
import hashlib
import json

from .bundle import Bundle, digest
from .disk_cache import cache_directory
from .json_codec import to_json
from .stamps import stamp


def check_once(bundle: Bundle) -> None:
    """Compare the SHA-256 of all files, but read a file only if it changed since this machine last checked it.

    A cache keeps each file's size and time of last change. Without a cache every file is read.

    Raises:
        BundleError: naming the first file that differs.
    """
    stamps = {name: stamp(bundle.file(name)) for name in bundle.manifest.files}
    try:
        key = hashlib.sha256(f"{bundle.path.resolve()} {digest(to_json(bundle.manifest))}".encode()).hexdigest()[:32]
        record = cache_directory("checked", key) / "stamps.json"
    except OSError:
        bundle.check()
        return
    earlier: dict[str, list[int]] = {}
    with contextlib.suppress(OSError, ValueError):
        earlier = json.loads(record.read_text())
    if changes := [name for name in stamps if earlier.get(name) != stamps[name]]:
        bundle.check(*changes)
        with contextlib.suppress(OSError):
            record.write_text(json.dumps(stamps))
