"""libspecc and bundles that it must not use, and too little memory: one line, and a status that is not 0."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libspecc
import pytest
from bad_bundles import KINDS, REMEDY
from shell import copied, edit_manifest

FROZEN = Path(__file__).parents[1] / "bundles" / "schema-3"
pytestmark = [pytest.mark.process, pytest.mark.xdist_group("libspecc")]


def replay(bundle: Path, megabytes: int = 0) -> subprocess.CompletedProcess[str]:
    """Replay a bundle by specc-replay.

    Args:
        bundle: its directory.
        megabytes: of address space that the program gets; 0 sets no limit.
    """

    def limit() -> None:
        if megabytes:
            resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20))

    command = [str(libspecc.built() / "specc-replay"), str(bundle)]
    return subprocess.run(command, env=libspecc.environment(), capture_output=True, text=True, preexec_fn=limit)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bundle_that_cannot_be_used_is_one_line_and_a_failure(kind: str, tmp_path: Path) -> None:
    damage, reason = KINDS[kind]
    bundle = copied(FROZEN, tmp_path)
    damage(bundle)
    result = replay(bundle)
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith("specc-replay: error: ") and reason in result.stderr
    assert str(bundle) in result.stderr, "the line names the file"
    assert REMEDY.search(result.stderr), result.stderr


Entry = dict[str, Any]
HEADERS: dict[str, Callable[[Entry], Any]] = {
    "no type": lambda entry: entry.pop("dtype"),
    "a type that is no text": lambda entry: entry.update(dtype=1),
    "no shape": lambda entry: entry.pop("shape"),
    "a shape that is no list": lambda entry: entry.update(shape="x"),
    "a length that is no number": lambda entry: entry.update(shape=["1"]),
    "a length below zero": lambda entry: entry.update(shape=[-1]),
    "more numbers than data": lambda entry: entry.update(shape=[1 << 20]),
    "no place": lambda entry: entry.pop("data_offsets"),
    "one offset": lambda entry: entry.update(data_offsets=[0]),
    "an offset that is no number": lambda entry: entry.update(data_offsets=["0", "4"]),
    "data behind the end": lambda entry: entry.update(data_offsets=[0, 1 << 40]),
    "data before the beginning": lambda entry: entry.update(data_offsets=[-4, 4]),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_a_tensor_that_cannot_be_used_is_one_line_that_names_its_file(kind: str, tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    weights = bundle / "weights.safetensors"
    content = weights.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    name = next(name for name, entry in header.items() if entry.get("dtype") == "F32")
    HEADERS[kind](header[name])
    text = json.dumps(header).encode()
    weights.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])
    message = {"bytes": weights.stat().st_size, "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    result = replay(edit_manifest(bundle, lambda m: m["files"].update({weights.name: message})))
    assert result.returncode == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"specc-replay: error: {weights}, tensor {name}: "), result.stderr
    assert REMEDY.search(result.stderr), result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a bundle: specc-replay BUNDLE [ROUNDS | --json]"),
        ([FROZEN, "1", "--json"], "give a bundle: specc-replay BUNDLE [ROUNDS | --json]"),
        (["--jso"], "there is no option --jso; give a bundle: specc-replay BUNDLE [ROUNDS | --json]"),
        *(
            ([FROZEN, rounds], f"ROUNDS is {rounds}; give a number of 1 or more, or --json")
            for rounds in ("0", "-1", "1x", "", "99999999999999999999", "--jso")
        ),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], message: str) -> None:
    command = [str(libspecc.built() / "specc-replay"), *map(str, arguments)]
    result = subprocess.run(command, env=libspecc.environment(), capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (2, f"specc-replay: error: {message}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], [FROZEN, "--help"]])
def test_help_is_printed_and_no_bundle_is_opened(arguments: list[str]) -> None:
    command = [str(libspecc.built() / "specc-replay"), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert (
        result.stdout.startswith("usage: specc-replay BUNDLE [ROUNDS | --json]\n") and "identical" not in result.stdout
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_output_that_cannot_be_written_is_one_line_and_a_failure(options: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    command = [str(libspecc.built() / "specc-replay"), str(FROZEN), *options]
    with open("/dev/full", "w") as full:
        result = subprocess.run(command, env=libspecc.environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    message = "cannot write the output; free some space, or write it elsewhere"
    assert (result.returncode, result.stderr) == (2, f"specc-replay: error: {message}\n")


@pytest.mark.parametrize(
    "megabytes", [30, *(pytest.param(size, marks=pytest.mark.slow) for size in range(50, 170, 10))]
)
def test_too_little_memory_is_one_line(megabytes: int) -> None:
    """Memory ends while libraries, engines or rows are loaded, or suffices. ONNX writes lines of its own before."""
    result = replay(FROZEN, megabytes)
    if result.returncode or megabytes < 50:
        assert result.returncode == 2, result
        *others, line = result.stderr.splitlines()
        assert line.startswith("specc-replay: error: ") and ("; free some" in line or "; close other sessions" in line)
        assert not any("specc-replay" in other for other in others)
