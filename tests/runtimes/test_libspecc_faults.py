"""libspecc and bundles that it must not use, and too little memory: one line, and a status that is not 0."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import libspecc
import pytest
from bad_bundles import KINDS, REMEDY
from shell import copied

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
    assert REMEDY.search(result.stderr), result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give a bundle: specc-replay BUNDLE [ROUNDS | --json]"),
        ([FROZEN, "1", "--json"], "give a bundle: specc-replay BUNDLE [ROUNDS | --json]"),
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
