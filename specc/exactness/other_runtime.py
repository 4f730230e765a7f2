"""Replay golden cases by another runtime: a program that decodes them and prints their tokens.

`PROGRAM BUNDLE --json` prints a line for each recipe that it has and each golden case, in any order: an object with
`recipe`, `case` (an index), `token_ids`, and if it likes `seconds` and `mean_acceptance_length`. Its status is 2 if it
cannot use the bundle, and the last line on standard error says why. docs/testing-a-bundle.md has an example.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from specc.exactness import golden
from specc.exactness.golden import Case, Replayed, Verdict
from specc.runtime.bundle import Bundle
from specc.runtime.errors import BackendError, first_line
from specc.runtime.width_invariance import is_lossless

PYTHON = "python"  # specc's own runtime, in this process
PROGRAMS: Mapping[str, str] = {"c": "specc-replay", "node": "specc-replay-node", "web": "specc-replay-web"}
LIBRARY = "SPECC_ONNXRUNTIME"  # this variable names the file of ONNX Runtime for libspecc
UNUSABLE = 2  # the status of a program that cannot use the bundle


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a runtime printed of one case."""

    recipe: str
    case: int
    token_ids: list[int]
    seconds: float = 0.0
    mean_acceptance_length: float = 1.0


def replay(
    runtime: str,
    bundle: Bundle,
    cases: Sequence[Case],
    recipes: Collection[str],
    tolerance: float,
    advance: Callable[[], None] = lambda: None,
) -> list[Replayed]:
    """Let a runtime decode the golden cases, and compare.

    Args:
        runtime: c, node, web, or the path of a program.
        bundle: the bundle.
        cases: its golden cases.
        recipes: names of the recipes to compare; empty means all that the runtime has.
        tolerance: a gap of logits below which a difference is a near-tie.
        advance: a function that is called after each answer.

    Returns:
        A result for each recipe and case.

    Raises:
        BackendError: the program is not there, cannot use the bundle, lacks a recipe, or prints something else.
    """
    answers = _answers(_program(runtime), bundle, advance)
    missing = [name for name in recipes if name not in {answer.recipe for answer in answers}]
    if missing or not answers:
        names = ", ".join(dict.fromkeys(answer.recipe for answer in answers)) or "none"
        raise BackendError(f"the runtime {runtime} has no recipe {', '.join(missing)}; of this bundle it has {names}")
    relevant = [answer for answer in answers if not recipes or answer.recipe in recipes]
    for name in dict.fromkeys(answer.recipe for answer in relevant):
        numbers = sorted(answer.case for answer in relevant if answer.recipe == name)
        if numbers != list(range(len(cases))):
            raise BackendError(
                f"the runtime {runtime} replayed the cases {numbers} by {name}, not each of the {len(cases)} once"
            )
    return [_judged(answer, bundle, cases, tolerance) for answer in relevant]


def _program(runtime: str) -> str:
    """Return the path of a runtime's program.

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


def _answers(program: str, bundle: Bundle, advance: Callable[[], None]) -> list[Answer]:
    """Run a program, and return what it printed.

    Raises:
        BackendError: it cannot use the bundle, or a line is not an answer.
    """
    command = [program, str(bundle.path), "--json"]
    answers = []
    with subprocess.Popen(
        command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            for line in process.stdout:
                answers.append(_answer(program, line, bundle))
                advance()
        except BaseException:
            process.kill()
            raise
        errors = process.stderr.read().strip().splitlines()
    if process.returncode not in (0, 1):
        reason = errors[-1] if errors else f"it ended with status {process.returncode}"
        raise BackendError(f"{program} cannot replay {bundle.path}: {reason}")
    return answers


def _answer(program: str, line: str, bundle: Bundle) -> Answer:
    """Read a line of a program. Raises BackendError if it is not an answer."""
    try:
        data: Any = json.loads(line)
        answer = Answer(**{name: value for name, value in data.items() if name in Answer.__annotations__})
        bundle.recipe(answer.recipe)
        if any(type(token) is not int for token in answer.token_ids):
            raise TypeError("token_ids are not whole numbers")
    except (ValueError, TypeError, AttributeError) as e:
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
