"""Weights in the layout of ONNX Runtime's matrix kernels, packed once a machine and mapped by all sessions.

Otherwise each session packs a copy of its own. The cache belongs to a machine, a version of ONNX Runtime and a bundle.
If one of them changes, all is packed again. Without a cache engines compute the same and take more memory.

    KEY/index.json    the key; where each weight lies in weights.bin, raw and packed; size and time of every file here
    KEY/weights.bin   raw and packed copies, appended to. A weight has one raw copy, whatever operators read it
    KEY/NAME.onnx     an engine that refers to weights.bin
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Self

from ..bundle import Bundle
from ..disk_cache import cache_directory
from ..environment import CacheOffError
from ..errors import SpeccWarning, first_line
from ..manifest import EngineSpec
from ..stamps import stamp
from .onnx_file import Location, OnnxFile
from .onnx_runtime import FATAL, ort
from .prepacked import Prepacked

PROVIDERS = ["CPUExecutionProvider"]
PAGE = 4096  # Copies begin at a page, since ONNX Runtime maps each of them by itself.
INLINE = 1024  # Weights of fewer bytes stay inside the engine's file.
BIN, INDEX, LOCK = "weights.bin", "index.json", ".lock"
_warned: set[Path] = set()  # bundles whose users know that their weights are not shared


def session(bundle: Bundle, spec: EngineSpec, options: ort.SessionOptions) -> ort.InferenceSession:
    """Load an engine with packed weights, which are packed first if need be.

    If that fails, the engine's own file is loaded, and a SpeccWarning says why, once for a bundle. There is no warning
    if the user switched the cache off.
    """
    try:
        return ort.InferenceSession(str(_packed(bundle, spec)), options, providers=PROVIDERS)
    except CacheOffError:
        return ort.InferenceSession(str(bundle.file(spec.file)), options, providers=PROVIDERS)
    except Exception as e:  # Such as a full disk or a damaged cache; ONNX Runtime's errors have no common base.
        loaded = ort.InferenceSession(str(bundle.file(spec.file)), options, providers=PROVIDERS)
        _warn_once(bundle.path, e)
        return loaded


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


@dataclass
class Index:
    """What a cache directory holds.

    Attributes:
        key: what it was packed for.
        files: size and time of last change of each file, by name.
        weights: where each weight lies in weights.bin, by its place in the bundle, then by the operators that read it.
            Kernels of other operators may need other packed copies.
    """

    key: str
    files: dict[str, list[int]] = field(default_factory=dict)
    weights: dict[str, dict[str, Location]] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path, key: str) -> Self:
        """Read a directory's index. If it does not match the key or the files, empty the directory and begin anew."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            index = cls(**json.loads((directory / INDEX).read_text()))
            if index.key == key and all(stamp(directory / name) == old for name, old in index.files.items()):
                return index
        for file in directory.iterdir():
            if file.name == LOCK:
                continue
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink()
        return cls(key)

    def write(self, directory: Path) -> None:
        """Write the index of the files that are now in a directory."""
        self.files = {f.name: stamp(f) for f in directory.iterdir() if f.suffix in (".onnx", ".bin")}
        partial = directory / f"{INDEX}.partial"
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(directory / INDEX)


def cache_key(bundle: Bundle) -> str:
    """Return a digest of what packed weights depend on: the bundle's graphs and weights, the kernels, the processor."""
    files = bundle.manifest.files
    graphs = [files[e.file].sha256 for e in bundle.manifest.engines]
    weights = sorted(f.sha256 for name, f in files.items() if name.endswith(".safetensors"))
    parts = [ort.__version__, platform.machine(), processor(), *weights, *graphs]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def processor() -> str:
    """Return the line of /proc/cpuinfo that lists the processor's instructions, or a name of the processor."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    return platform.processor()


def _packed(bundle: Bundle, spec: EngineSpec) -> Path:
    """Return the packed engine's file, which is made if it is not there.

    Raises:
        OSError: there is no room, or no right to write.
    """
    key = cache_key(bundle)
    directory = cache_directory("packed", key)
    with _locked(directory):
        index = Index.read(directory, key)
        if spec.file not in index.files:
            _pack(bundle, spec, directory, index)
    return directory / spec.file


def _pack(bundle: Bundle, spec: EngineSpec, directory: Path, index: Index) -> None:
    """Write the engine's twin, whose weights lie packed in weights.bin. Weights that another engine packed stay."""
    twin = OnnxFile(bundle.file(spec.file))
    places = {name: f"{at['location']} {at['offset']}+{at['length']}" for name, at in twin.weights.items()}
    users = {name: " ".join(sorted(twin.users[name])) for name in twin.weights}
    if missing := [name for name in places if users[name] not in index.weights.get(places[name], {})]:
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            fresh = _packed_by_runtime(bundle.file(spec.file), Path(scratch))
            with (directory / BIN).open("ab") as bin_file, (Path(scratch) / BIN).open("rb") as packed:
                for name in missing:
                    locations = index.weights.setdefault(places[name], {})
                    raw = next((location["offset"] for location in locations.values()), None)
                    locations[users[name]] = _move(fresh.weights[name], packed, bin_file, raw)
    for name, place in places.items():
        twin.weights[name] = index.weights[place][users[name]]
    twin.save(directory / spec.file)
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


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock a cache directory against other processes until the block ends."""
    with (directory / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
