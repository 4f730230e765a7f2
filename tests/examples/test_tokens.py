"""The examples of other languages stream the tokens of libspecc, by the commands that they name."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import takewhile
from pathlib import Path
from typing import IO

import libspecc
import pytest
from bad_bundles import KINDS
from libspecc import Model, Session
from shell import copied

from specc.exactness.golden import read_cases

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "tests" / "bundles" / "schema-3"
CASE = read_cases(BUNDLE / "golden.jsonl")[0]
COMPILERS = {"rust": ("rustc",), "go": ("go",), "java": ("javac", "/usr/share/java/jna.jar"), "csharp": ("mcs", "mono")}
ARGUMENTS = " model.specc prompt-lookup 32 1 5 9"
LINES = 90  # that are not blank: an example is to be read in one go
pytestmark = [pytest.mark.process, pytest.mark.xdist_group("libspecc")]


def example(language: str) -> Path:
    """Return the example of a language."""
    (file,) = (ROOT / "examples" / language).glob("tokens.*")
    return file


def commands(file: Path) -> list[str]:
    """Return the commands in the head comment: one that builds, one that sets variables, and one that runs."""
    head = takewhile(lambda line: line.startswith("//"), file.read_text(encoding="utf-8").splitlines())
    lines = (line.lstrip("/! \t") for line in head)
    starts = ("rustc ", "CGO_CFLAGS=", "javac ", "mcs ", "export ", "./tokens ", "java ", "mono ")
    return [line for line in lines if line.startswith(starts)]


@pytest.fixture(scope="module", params=sorted(COMPILERS))
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Build an example by its own command, in a folder that looks like the root after libspecc was built.

    Returns:
        The folder, and the commands of the head comment that set variables and run the example.
    """
    for tool in COMPILERS[request.param]:
        if not shutil.which(tool) and not Path(tool).is_file():
            pytest.skip(f"{tool} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "build").mkdir()
    (folder / "build" / "c").symlink_to(libspecc.built())
    for name in ("examples", "runtimes"):
        (folder / name).symlink_to(ROOT / name)
    build, variables, start = commands(example(request.param))
    environment = os.environ | {"GOCACHE": str(ROOT / "build" / "go"), "GOFLAGS": "-mod=mod"}
    result = subprocess.run(build, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder, variables, start.removesuffix(ARGUMENTS)


def run(
    program: tuple[Path, str, str], *arguments: object, output: int | IO[str] = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run an example. Its standard output goes to a pipe, or to a file."""
    folder, variables, start = program
    command = ["sh", "-c", f'{variables}\n{start} "$@"', "sh", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=libspecc.environment(), stdout=output, stderr=subprocess.PIPE, text=True
    )


def test_the_tokens_are_golden_and_the_statistics_those_of_libspecc(program: tuple[Path, str, str]) -> None:
    count = len(CASE.token_ids)
    model = Model(BUNDLE)
    session = Session(model)
    _, stats = session.generate(CASE.prompt_ids, count, "prompt-lookup")
    session.close()
    model.close()
    result = run(program, BUNDLE, "prompt-lookup", count, *CASE.prompt_ids)
    tokens, line = result.stdout.splitlines()
    assert list(map(int, tokens.split())) == CASE.token_ids
    length = f"{stats.mean_acceptance_length:.2f}"
    assert stats.accepted > 0
    assert line == (
        f"prompt-lookup: {count} tokens, {stats.target_calls} target calls, mean acceptance length {length}"
    )
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("kind", ["altered", "newer schema", "no bundle"])
def test_a_bundle_that_cannot_be_used_is_one_line(kind: str, program: tuple[Path, str, str], tmp_path: Path) -> None:
    damage, reason = KINDS[kind]
    bundle = copied(BUNDLE, tmp_path)
    damage(bundle)
    assert_refused(run(program, bundle, "plain", 4, *CASE.prompt_ids), reason)


def test_a_request_that_cannot_be_served_is_one_line(program: tuple[Path, str, str]) -> None:
    assert_refused(run(program, BUNDLE, "plai", 4, 1), "the bundle has no recipe 'plai', only plain, ")
    assert_refused(run(program, BUNDLE, "plain", 0, 1), "max_new_tokens is 0; give 1 or more")
    assert_refused(run(program, BUNDLE, "plain", "four", 1), "four")
    assert_refused(run(program, BUNDLE, "plain", 4, 1 << 64), str(1 << 64))
    assert_refused(run(program, BUNDLE), "usage: tokens BUNDLE RECIPE MAX_NEW_TOKENS TOKEN_ID...")


def test_an_output_that_cannot_be_written_is_one_line(program: tuple[Path, str, str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        result = run(program, BUNDLE, "plain", 4, *CASE.prompt_ids, output=full)
    assert_refused(result, "Disk full" if "Disk full" in result.stderr else "o space left on device")  # Mono, others


def assert_refused(result: subprocess.CompletedProcess[str], reason: str) -> None:
    """Check that a program gave one line and exit status 2, and no tokens."""
    assert result.returncode == 2 and not result.stdout
    assert result.stderr.startswith("error: ") and reason in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize("language", sorted(COMPILERS))
def test_the_example_is_short_and_its_head_says_how_to_run_it(language: str) -> None:
    file = example(language)
    assert sum(1 for line in file.read_text(encoding="utf-8").splitlines() if line.strip()) <= LINES
    build, variables, start = commands(file)
    assert build.endswith(f" {file.relative_to(ROOT)}") and variables.startswith("export LD_LIBRARY_PATH=build/c ")
    assert start.endswith(ARGUMENTS)
