"""Weights in the layout of ONNX Runtime's matrix kernels, made once a machine and mapped by all sessions.

Without this each session packs a copy of its own. The cache belongs to a machine, an ONNX Runtime and a bundle; what
does not fit any more is made again, and without it engines run the same, in more memory.

    KEY/index.json    the key; where each weight lies in weights.bin, raw and packed; size and time of every file here
    KEY/weights.bin   raw and packed copies, appended to; what is gathered from and packed has one raw copy
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import onnxruntime as ort

from ..bundle import Bundle
from ..environment import cache_directory, stamp
from ..manifest import EngineSpec
from .onnx_file import Location, OnnxFile

PROVIDERS = ["CPUExecutionProvider"]
PAGE = 4096
BIN, INDEX, LOCK = "weights.bin", "index.json", ".lock"


def session(bundle: Bundle, spec: EngineSpec, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session of the packed engine, packing it first if need be; of the bundle's own file where that fails."""
    try:
        file = _packed(bundle, spec)
        return ort.InferenceSession(str(file), options, providers=PROVIDERS)
    except Exception:  # no room, no right to write, a cache that someone damaged: ONNX Runtime's errors have no family
        return ort.InferenceSession(str(bundle.file(spec.file)), options, providers=PROVIDERS)


def _packed(bundle: Bundle, spec: EngineSpec) -> Path:
    """The packed engine's file. Raises OSError where there is no room or no right to write it."""
    key = _key(bundle)
    directory = cache_directory("packed", key)
    with _locked(directory):
        index = _read_index(directory, key)
        if spec.file not in index["files"]:
            _pack(bundle, spec, directory, index)
    return directory / spec.file


def _pack(bundle: Bundle, spec: EngineSpec, directory: Path, index: dict[str, Any]) -> None:
    """Write the engine's twin, whose weights lie packed in the one file; pack those that no engine had before."""
    twin = OnnxFile(bundle.file(spec.file))
    places = {name: f"{at['location']} {at['offset']}+{at['length']}" for name, at in twin.weights.items()}
    keys = {name: f"{place} {' '.join(sorted(twin.users[name]))}" for name, place in places.items()}
    if missing := [name for name, key in keys.items() if key not in index["weights"]]:
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            made = _packed_by_runtime(bundle.file(spec.file), Path(scratch))
            with (directory / BIN).open("ab") as bin_file, (Path(scratch) / BIN).open("rb") as packed:
                for name in missing:
                    moved = _move(made.weights[name], packed, bin_file, index["raw"].get(places[name]))
                    index["weights"][keys[name]], index["raw"][places[name]] = moved, moved["offset"]
    for name, key in keys.items():
        twin.weights[name] = index["weights"][key]
    twin.save(directory / spec.file)
    index["files"] = {f.name: stamp(f) for f in directory.iterdir() if f.suffix in (".onnx", ".bin")}
    partial = directory / f"{INDEX}.partial"
    partial.write_text(json.dumps(index))
    partial.replace(directory / INDEX)


def _packed_by_runtime(file: Path, scratch: Path) -> OnnxFile:
    """What ONNX Runtime writes when told to save an engine with its weights as its kernels want them."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # every weight keeps its name
    options.optimized_model_filepath = str(scratch / file.name)
    for key, value in (
        ("optimized_model_external_initializers_file_name", BIN),
        ("optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(f"session.{key}", value)
    ort.InferenceSession(str(file), options, providers=PROVIDERS)
    return OnnxFile(scratch / file.name)


def _move(location: Location, packed: BinaryIO, bin_file: BinaryIO, raw: str | None) -> Location:
    """Append a weight, unless it lies at `raw` already, and its packed copies; return where they lie now."""

    def append(offset: str, length: str) -> str:
        bin_file.write(b"\0" * (-bin_file.tell() % PAGE))
        start = bin_file.tell()
        packed.seek(int(offset))
        shutil.copyfileobj(_Part(packed, int(length)), bin_file)
        return str(start)

    moved = dict(location) | {"offset": raw or append(location["offset"], location["length"])}
    for key, value in location.items():
        if key.startswith("prepacked"):
            kernel, *copies = value.split("|")
            parts = [c.split(";") for c in copies]
            moved[key] = "|".join([kernel, *(";".join([append(p[0], p[1]), *p[1:]]) for p in parts)])
    return moved


class _Part:
    """The next so many bytes of a file."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self.file, self.left = file, length

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(min(size, self.left) if size >= 0 else self.left)
        self.left -= len(data)
        return data


def _read_index(directory: Path, key: str) -> dict[str, Any]:
    """The index, or an empty one over an emptied directory where it does not tell the truth."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        index: dict[str, Any] = json.loads((directory / INDEX).read_text())
        unchanged = all(stamp(directory / name) == was for name, was in index["files"].items())
        if unchanged and index["key"] == key and index.keys() >= {"weights", "raw"}:
            return index
    for file in directory.iterdir():
        if file.name != LOCK:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    return {"key": key, "files": {}, "weights": {}, "raw": {}}


def _key(bundle: Bundle) -> str:
    """What packed weights depend on: the bundle's graphs and weights, the kernels, the processor."""
    files = bundle.manifest.files
    graphs = [files[e.file].sha256 for e in bundle.manifest.engines]
    weights = sorted(f.sha256 for name, f in files.items() if name.endswith(".safetensors"))
    parts = [ort.__version__, platform.machine(), _processor(), *weights, *graphs]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    return platform.processor()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with (directory / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
