"""Replay golden cases by another runtime: a program that decodes them and prints their tokens.

`PROGRAM BUNDLE --json` prints a line for each recipe that it has and each golden case, in any order: an object with
`recipe`, `case` (an index), `token_ids`, and if it likes `seconds` and `mean_acceptance_length`. First it prints a line
for each recipe that it leaves out: an object with `recipe` and `left_out`, the reason. Its status is 2 if it cannot use
the bundle, and the last line on standard error says why. docs/testing-a-bundle.md has an example.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import IO, Any

from specc.exactness import golden
from specc.exactness.golden import Case, Replayed, Verdict
from specc.runtime.bundle import Bundle
from specc.runtime.errors import BackendError, first_line
from specc.runtime.width_invariance import is_lossless

PYTHON = "python"  # specc's own runtime, in this process
PROGRAMS: Mapping[str, str] = {"c": "specc-replay", "node": "specc-replay-node", "web": "specc-replay-web"}
LIBRARY = "SPECC_ONNXRUNTIME"  # this variable names the file of ONNX Runtime for libspecc
DIVERGED = 1  # A program ends with this status if its tokens differ from the golden ones.
UNUSABLE = 2  # the status of a program that cannot use the bundle
SECONDS_TO_END = 5  # between the request to a program to end and its kill


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a runtime printed of one case."""

    recipe: str
    case: int
    token_ids: list[int]
    seconds: float = 0.0
    mean_acceptance_length: float = 1.0

    def __post_init__(self) -> None:
        if type(self.recipe) is not str or type(self.case) is not int:
            raise TypeError("recipe is not text, or case is not a whole number")
        if type(self.token_ids) is not list or any(type(token) is not int for token in self.token_ids):
            raise TypeError("token_ids are not whole numbers")
        if not (0 <= self.seconds < inf and 1 <= self.mean_acceptance_length < inf):
            raise ValueError("seconds is not a number of 0 or more, or mean_acceptance_length not one of 1 or more")


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A recipe that a runtime leaves out, and why."""

    recipe: str
    left_out: str


@dataclass(frozen=True, kw_only=True)
class Replays:
    """The answers of another runtime.

    Attributes:
        results: a result for each recipe and case.
        left_out: the recipes that it left out, with the reasons.
    """

    results: Sequence[Replayed]
    left_out: Mapping[str, str]


def replay(
    runtime: str,
    bundle: Bundle,
    cases: Sequence[Case],
    recipes: Collection[str],
    tolerance: float,
    advance: Callable[[], None] = lambda: None,
) -> Replays:
    """Let a runtime decode the golden cases, and compare.

    Args:
        runtime: c, node, web, or the path of a program.
        bundle: the bundle.
        cases: its golden cases.
        recipes: names of the recipes to compare; empty means all that the runtime has.
        tolerance: a gap of logits below which a difference is a near-tie.
        advance: a function that is called after each answer.

    Raises:
        BackendError: the program is not there, cannot use the bundle, lacks a recipe, or prints something else.
    """
    left_out: dict[str, str] = {}
    answers = []
    with closing(_lines(find_program(runtime), bundle)) as lines:
        for line in lines:
            if isinstance(line, Answer):
                answers.append(line)
                advance()
                continue
            if line.recipe in recipes:  # The program ends here, before it decodes what nobody will read.
                raise BackendError(
                    f"the runtime {runtime} has no recipe {line.recipe}: {line.left_out}; name another one"
                )
            left_out[line.recipe] = line.left_out
    present = list(dict.fromkeys(answer.recipe for answer in answers))
    missing = [name for name in recipes if name not in present]
    if not present:
        raise BackendError(f"the runtime {runtime} replayed no recipe of {bundle.path}; compile it with another recipe")
    if missing:
        names = ", ".join(present)
        raise BackendError(f"the runtime {runtime} has no recipe {', '.join(missing)}; of this bundle it has {names}")
    unknown = {recipe.name: "it gave no answer and no reason" for recipe in bundle.manifest.recipes}
    relevant = [answer for answer in answers if not recipes or answer.recipe in recipes]
    for name in dict.fromkeys(answer.recipe for answer in relevant):
        numbers = sorted(answer.case for answer in relevant if answer.recipe == name)
        if numbers != list(range(len(cases))):
            raise BackendError(
                f"the runtime {runtime} replayed the cases {numbers} by {name}, not each of the {len(cases)} once"
            )
    others = {name: reason for name, reason in (unknown | left_out).items() if name not in present}
    return Replays(
        results=[_judged(answer, bundle, cases, tolerance) for answer in relevant], left_out={} if recipes else others
    )


def find_program(runtime: str) -> str:
    """Return the path of the program of c, node, web, or of a runtime that is a path itself.

    Raises:
        BackendError: there is no such program.
    """
    name = PROGRAMS.get(runtime, runtime)
    program = shutil.which(name)
    if program is None:
        names = ", ".join((PYTHON, *PROGRAMS))
        where = (
            f"the program {name}, which is not on PATH" if runtime in PROGRAMS else f"no program, and none of {names}"
        )
        raise BackendError(f"the runtime {runtime} is {where}; give the path of a program that replays bundles")
    return program


def _lines(program: str, bundle: Bundle) -> Generator[Answer | LeftOut, None, None]:
    """Run a program, and yield what it prints. It is ended if nobody reads on.

    Raises:
        BackendError: it does not start, fails, cannot use the bundle, or a line is not an answer.
    """
    command, has_answered = [program, str(bundle.path.absolute()), "--json"], False
    with tempfile.TemporaryFile() as errors:  # A pipe that is full would stop the program.
        try:
            process = subprocess.Popen(
                command, env=_environment(), stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
            )
        except OSError as e:
            raise BackendError(f"{program} does not start ({first_line(e)}); give a program of this machine") from e
        with process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    answer = _parse(program, line, bundle)
                    has_answered |= isinstance(answer, Answer)
                    yield answer
            except BaseException:
                _end(process)
                raise
        if process.returncode not in (0, DIVERGED) or (process.returncode == DIVERGED and not has_answered):
            line, status = _last_line(errors), f"it ended with status {process.returncode}"
            if line and process.returncode != UNUSABLE:
                line = f"{status}: {line}"
            raise BackendError(f"{program} cannot replay {bundle.path}: {line or status}")


def _end(process: subprocess.Popen[str]) -> None:
    """End a program: first by a request, since a program may have processes and files of its own to end and remove."""
    process.terminate()
    try:
        process.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()


def _last_line(errors: IO[bytes]) -> str:
    """Return the last line that is not empty of what a program wrote to standard error, at most 4096 bytes."""
    errors.seek(max(0, errors.seek(0, os.SEEK_END) - 4096))
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return "".join(c if c.isprintable() else " " for c in lines[-1]) if lines else ""


def _parse(program: str, line: str, bundle: Bundle) -> Answer | LeftOut:
    """Read a line of a program. Raises BackendError if it is not an answer."""
    try:
        data: Any = json.loads(line)
        kind = LeftOut if "left_out" in data else Answer
        answer = kind(**{name: value for name, value in data.items() if name in kind.__annotations__})
        bundle.recipe(answer.recipe)
    except (ValueError, TypeError, AttributeError, RecursionError) as e:
        raise BackendError(
            f"{program} printed {line.strip()[:60]!r}, which is not an answer ({first_line(e)}); "
            "it must print an object with recipe, case and token_ids"
        ) from e
    return answer


def _environment() -> dict[str, str]:
    """Return this process's variables, and where ONNX Runtime's library is, if that is installed and nobody says it."""
    spec = find_spec("onnxruntime")
    folder = Path(spec.origin).parent / "capi" if spec and spec.origin else Path()
    libraries = sorted(folder.glob("libonnxruntime.so*")) if spec else []
    return {LIBRARY: str(libraries[0])} | os.environ if libraries else dict(os.environ)


def _judged(answer: Answer, bundle: Bundle, cases: Sequence[Case], tolerance: float) -> Replayed:
    """Compare an answer with its golden case."""
    result = golden.judge(answer.recipe, answer.case, answer.token_ids, cases[answer.case], tolerance)
    is_lossy = result.verdict is Verdict.DIVERGED and not is_lossless(bundle.manifest, bundle.recipe(answer.recipe))
    speed = max(0, len(answer.token_ids) - 1) / answer.seconds if answer.seconds else 0.0
    return replace(
        result,
        verdict=Verdict.LOSSY if is_lossy else result.verdict,
        seconds=answer.seconds,
        tokens_per_second=speed,
        mean_acceptance_length=answer.mean_acceptance_length,
    )
