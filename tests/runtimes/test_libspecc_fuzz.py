"""libspecc opens manifests that were changed at random, and refuses them in one line or decodes: no crash, no leak."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import libspecc
import pytest
from shell import copied, edit_manifest
from signing import resigned, signed

FROZEN = Path(__file__).parents[1] / "bundles" / "schema-3"
# How many manifests the slow test tries, from which number on, and with which seed. SPECC_MANIFESTS=100 SPECC_FIRST=900
# SPECC_SEED=7 tries others.
CASES = int(os.environ.get("SPECC_MANIFESTS", "10000"))
FIRST = int(os.environ.get("SPECC_FIRST", "0"))
SEED = int(os.environ.get("SPECC_SEED", "0"))
VALUES: list[Any] = [None, -1, 0, 1, 127, 1 << 31, 1 << 62, -(1 << 63), 0.5, "", "x", [], {}, [[]], True]
BATCH = 1000  # Manifests of one process. The leak sanitizer reports when it ends.
# ONNX Runtime allocates so much that short traces and a small quarantine halve the time.
SANITIZERS = {
    "ASAN_OPTIONS": "malloc_context_size=8:quarantine_size_mb=16",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
pytestmark = [pytest.mark.process, pytest.mark.xdist_group("libspecc")]


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield each place in a JSON value: the object or array, and the name or number in it."""
    if isinstance(value, (dict, list)):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key])


def changed_fields(manifest: bytes, rng: random.Random) -> bytes:
    """Change a few fields: another value, one from elsewhere in the manifest, or none. Sign the manifest again."""
    data = json.loads(manifest)
    part = data[rng.choice(["engines", "recipes", "recipes", "caches", "model", "files"])]
    for _ in range(rng.randint(1, 3)):
        if not (spots := list(places(part))):
            break
        holder, key = rng.choice(spots)
        kind = rng.random()
        if kind < 0.1:
            del holder[key]
        elif kind < 0.5:
            other, name = rng.choice(spots)
            holder[key] = json.loads(json.dumps(other[name]))
        else:
            holder[key] = copy.deepcopy(rng.choice(VALUES))  # A later change may be made inside it.
    return signed(data)


def changed_bytes(manifest: bytes, rng: random.Random) -> bytes:
    """Change a few bytes, and sign the manifest again in half of the cases."""
    content = bytearray(manifest)
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(len(content))] = rng.choice(b'{}[]",:0919xe-')
    return resigned(bytes(content)) if rng.random() < 0.5 else bytes(content)


def mutated(manifest: bytes, rng: random.Random) -> bytes:
    """Change a manifest at random. One case in ten is the manifest as it is, or is cut."""
    kind = rng.random()
    if kind < 0.02:
        return manifest
    if kind < 0.1:
        return manifest[: rng.randrange(len(manifest))]
    return changed_bytes(manifest, rng) if kind < 0.3 else changed_fields(manifest, rng)


def small_bundle(directory: Path) -> Path:
    """Copy the frozen bundle with little in it: no weights, one layer, and the engines of recipes.

    The stub reads no file, and most of the time goes to manifests, which are read in full.
    """
    bundle = copied(FROZEN, directory)
    for file in bundle.iterdir():
        if file.name != "manifest.json":
            file.write_bytes(b"")
    header = b"{}"
    (bundle / "weights.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)

    def shorten(manifest: dict[str, Any]) -> None:
        for name, file in manifest["files"].items():
            content = (bundle / name).read_bytes()
            file.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        names = {"prefill", "decode"}
        for recipe in manifest["recipes"]:
            names |= {*recipe["verify"], *recipe["engines"].values()}
        manifest["engines"] = [engine for engine in manifest["engines"] if engine["name"] in names]
        for engine in manifest["engines"]:
            engine["passes"], engine["needs"], engine["layers"] = [], {}, engine["layers"][:1]
            for tensors in ("inputs", "outputs"):
                engine[tensors] = [t for t in engine[tensors] if is_of_layers(t["name"], engine["layers"])]
        manifest["extra"], manifest["measured"] = {}, []

    return edit_manifest(bundle, shorten)


def is_of_layers(tensor: str, layers: Sequence[str]) -> bool:
    """Return whether a tensor is no part of a cache, or is one of these layers."""
    prefix, _, row = tensor.partition(".")
    return prefix not in ("past_key_values", "present") or row.split(".")[0] in layers


def fuzz(directory: Path, bundle: Path, numbers: range, folder: Path, onnxruntime: Path) -> list[str]:
    """Open manifests in one process. Return the line that libspecc wrote for each.

    Args:
        directory: an empty one.
        bundle: the bundle; its manifest is replaced.
        numbers: of the manifests: each has a seed of its own.
        folder: where libspecc is built.
        onnxruntime: the library of ONNX Runtime, or the stub.
    """
    batch = directory / "manifests"
    manifest = (bundle / "manifest.json").read_bytes()
    with batch.open("wb") as file:
        for number in numbers:
            content = mutated(manifest, random.Random(f"{SEED}/{number}"))
            file.write(b"%d\n" % len(content) + content)
    command = [str(folder / "specc-manifests"), str(bundle), str(batch)]
    environment = libspecc.environment() | SANITIZERS | {"SPECC_ONNXRUNTIME": str(onnxruntime)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    lines = result.stdout.splitlines()
    assert result.returncode == 0, f"manifest {numbers[len(lines)]} of seed {SEED}: {result.stderr[:4000]}"
    assert len(lines) == len(numbers)
    (bundle / "manifest.json").write_bytes(manifest)
    return lines


def check(lines: list[str]) -> None:
    """Check that each manifest got one line, that some are right, and that most are not."""
    assert all(line and line.isprintable() for line in lines)
    assert 0 < lines.count("ok") < len(lines)


def test_changed_manifests_crash_nothing(tmp_path: Path) -> None:
    folder = libspecc.built()
    check(fuzz(tmp_path, small_bundle(tmp_path), range(150), folder, folder / "libspecc-stub.so"))


@pytest.mark.slow
def test_changed_manifests_crash_nothing_in_onnxruntime(tmp_path: Path) -> None:
    check(fuzz(tmp_path, copied(FROZEN, tmp_path), range(200), libspecc.built(), Path(libspecc.onnxruntime_library())))


@pytest.mark.slow
def test_changed_manifests_crash_and_leak_nothing_under_sanitizers(tmp_path: Path) -> None:
    folder, bundle = libspecc.built("address,undefined"), small_bundle(tmp_path)
    for first in range(FIRST, FIRST + CASES, BATCH):
        numbers = range(first, min(first + BATCH, FIRST + CASES))
        check(fuzz(tmp_path, bundle, numbers, folder, folder / "libspecc-stub.so"))
