"""Weights in the layout of ONNX Runtime's matrix kernels, packed once a machine and mapped by all sessions.

Otherwise each session packs a copy of its own. An entry belongs to a processor, a version of ONNX Runtime, and the
content of a bundle's engines and weights. If one of them changes, all is packed again. An entry that does not fit its
index is never used: it is emptied and packed again. Without a cache engines compute the same and take more memory.

    KEY/index.json    the key; where each weight lies in weights.bin, raw and packed; the stamp of every file here
    KEY/weights.bin   raw and packed copies, appended to. A weight has one raw copy, whatever operators read it
    KEY/SHA256.onnx   an engine that refers to weights.bin, by the digest of the bundle's own file
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from ..bundle import Bundle
from ..checked_files import check_unchanged
from ..disk_cache import locked_entry, make_room
from ..environment import CacheOffError
from ..errors import BundleError, SpeccError, SpeccWarning, first_line
from ..manifest import EngineSpec
from ..stamps import stamp
from .onnx_file import Location, OnnxFile
from .onnx_runtime import FATAL, ort
from .packed_index import BIN, Index
from .prepacked import Prepacked

PROVIDERS = ["CPUExecutionProvider"]
PAGE = 4096  # Copies begin at a page, since ONNX Runtime maps each of them by itself.
INLINE = 1024  # Weights of fewer bytes stay inside the engine's file.
PACKED = 2  # times the bytes of a weight that it takes with its packed copy, at most
_warned: set[Path] = set()  # bundles whose users know that their weights are not shared


def session(bundle: Bundle, spec: EngineSpec, options: ort.SessionOptions) -> ort.InferenceSession:
    """Load an engine with packed weights, which are packed first if need be.

    If that fails, the engine's own file is loaded, and a SpeccWarning says why, once for a bundle. There is no warning
    if the user switched the cache off.

    Raises:
        BundleError: a file was replaced after it was checked, or the engine reads one that the manifest does not list.
        BackendError: SPECC_CACHE_SIZE is not a size.
    """
    try:
        with _packed(bundle, spec) as file:
            return ort.InferenceSession(str(file), options, providers=PROVIDERS)
    except SpeccError:
        raise
    except CacheOffError:
        return ort.InferenceSession(str(bundle.file(spec.file)), options, providers=PROVIDERS)
    except Exception as e:  # Such as a full disk or a damaged cache; ONNX Runtime's errors have no common base.
        session = ort.InferenceSession(str(bundle.file(spec.file)), options, providers=PROVIDERS)
        _warn_once(bundle.path, e)
        return session


def _warn_once(path: Path, error: Exception) -> None:
    """Warn that the engines of a bundle do not share packed weights, and why."""
    if path in _warned:
        return
    _warned.add(path)
    text = (
        f"{path}: engines do not share packed weights ({first_line(error)}), so each takes memory for its own copy; "
        "let SPECC_CACHE name a directory with room, or be off"
    )
    warnings.warn(text, SpeccWarning, stacklevel=3)


def cache_key(bundle: Bundle) -> str:
    """Return a digest of what packed weights depend on: the content of engines and weights, the kernels, the processor.

    Names are a part of it, since an engine finds its weights by the name of their file.
    """
    parts = [ort.__version__, platform.machine(), processor(), sorted(_sources(bundle).items())]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _sources(bundle: Bundle) -> dict[str, str]:
    """Return the SHA-256 of each file that an engine may read, by name. All others are no part of the key."""
    engines = {engine.file for engine in bundle.manifest.engines}
    files = bundle.manifest.files
    return {name: files[name].sha256 for name in files if name in engines or name.endswith(".safetensors")}


def processor() -> str:
    """Return the line of /proc/cpuinfo that lists the processor's instructions, or a name of the processor."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    return platform.processor()


@contextlib.contextmanager
def _packed(bundle: Bundle, spec: EngineSpec) -> Iterator[Path]:
    """Yield the packed engine's file, which is made if it is not there. Nobody changes the entry until the block ends.

    Raises:
        OSError: there is no room, or no right to write, or another process keeps the entry.
        BundleError: a file was replaced after it was checked, or the engine reads one that the manifest does not list.
    """
    key, name = cache_key(bundle), f"{bundle.manifest.files[spec.file].sha256}.onnx"
    with locked_entry("packed", key, shared=True) as directory:
        index = Index.read(directory, key)
        if index is not None and name in index.files:
            yield directory / name
            return
    with locked_entry("packed", key) as directory:
        index = Index.read(directory, key) or Index.begin(directory, key)
        if name not in index.files:
            index.sweep(directory)
            _pack(bundle, spec, directory / name, index)
        yield directory / name


def _pack(bundle: Bundle, spec: EngineSpec, file: Path, index: Index) -> None:
    """Write the engine's twin, whose weights lie packed in weights.bin. Weights that another engine packed stay.

    Args:
        bundle: whose engine.
        spec: the engine.
        file: the twin, beside weights.bin.
        index: what the entry holds. It gets the new weights, and is written.

    Raises:
        OSError: there is no room.
        BundleError: a file was replaced after it was checked, or the engine reads one that the manifest does not list.
    """
    twin, directory = OnnxFile(bundle.file(spec.file)), file.parent
    sources = sorted({spec.file, *(at["location"] for at in twin.weights.values())})
    if foreign := set(sources).difference(_sources(bundle)):
        raise BundleError(f"{spec.file} reads {min(foreign)!r}, which is not weights; compile the bundle again")
    check_unchanged(bundle, sources)
    before = [stamp(bundle.file(name)) for name in sources]
    places = {name: f"{at['location']} {at['offset']}+{at['length']}" for name, at in twin.weights.items()}
    users = {name: " ".join(sorted(twin.users[name])) for name in twin.weights}
    if missing := [name for name in places if users[name] not in index.weights.get(places[name], {})]:
        make_room(PACKED * sum(int(twin.weights[name]["length"]) for name in missing), keep=directory)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            fresh = _packed_by_runtime(bundle.file(spec.file), Path(scratch))
            with (directory / BIN).open("ab") as bin_file, (Path(scratch) / BIN).open("rb") as packed:
                for name in missing:
                    locations = index.weights.setdefault(places[name], {})
                    raw = next((location["offset"] for location in locations.values()), None)
                    locations[users[name]] = _move(fresh.weights[name], packed, bin_file, raw)
                bin_file.flush()
                os.fsync(bin_file.fileno())  # The index must not reach the disk before the weights.
    for name, place in places.items():
        twin.weights[name] = index.weights[place][users[name]]
    twin.save(file)
    if before != [stamp(bundle.file(name)) for name in sources]:
        Index.begin(directory, index.key)  # Nobody knows which bytes were packed.
        check_unchanged(bundle, sources)
        raise OSError("the bundle's files changed while they were packed")
    index.write(directory)


def _packed_by_runtime(file: Path, scratch: Path) -> OnnxFile:
    """Let ONNX Runtime save an engine with its weights as its kernels want them, into `scratch`."""
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    # An optimised graph would have weights of other names.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.optimized_model_filepath = str(scratch / file.name)
    for key, value in (
        ("optimized_model_external_initializers_file_name", BIN),
        ("optimized_model_external_initializers_min_size_in_bytes", str(INLINE)),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(f"session.{key}", value)
    ort.InferenceSession(str(file), options, providers=PROVIDERS)
    return OnnxFile(scratch / file.name)


def _move(location: Location, packed: BinaryIO, bin_file: BinaryIO, raw: str | None) -> Location:
    """Append a weight and its packed copies to weights.bin.

    Args:
        location: where they lie in `packed`.
        packed: the file that ONNX Runtime wrote.
        bin_file: weights.bin.
        raw: the offset of the weight itself in `bin_file`, if it lies there already.

    Returns:
        Where they lie in `bin_file`.
    """

    def append(offset: int, length: int) -> int:
        bin_file.write(b"\0" * (-bin_file.tell() % PAGE))
        start = bin_file.tell()
        packed.seek(offset)
        shutil.copyfileobj(_Part(packed, length), bin_file)
        return start

    offset = raw or str(append(int(location["offset"]), int(location["length"])))
    moved = location | {"offset": offset}
    for key, value in location.items():
        if key.startswith("prepacked"):
            entry = Prepacked.parse(value)
            copies = [replace(copy, offset=append(copy.offset, copy.length)) for copy in entry.copies]
            moved[key] = replace(entry, copies=tuple(copies)).format()
    return moved


class _Part:
    """A reader of the next `length` bytes of a file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self.file, self.left = file, length

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(min(size, self.left) if size >= 0 else self.left)
        self.left -= len(data)
        return data
