"""Golden outputs: what the original model says, kept in the bundle, and replayed through the runtime. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from specc import prompts
from specc.runtime.errors import BundleError
from specc.runtime.session import Session

FILE = "golden.jsonl"


@dataclass(frozen=True)
class Case:
    """A prompt, the reference's greedy tokens after it, and its top-2 logit gap at each of them."""

    prompt: str
    prompt_ids: list[int]
    token_ids: list[int]
    gaps: list[float]


@dataclass(frozen=True)
class Replayed:
    """One case by one recipe. `at` is the place of the first token that differs, None where there is none.

    token: what stands there instead, None where the text ended. gap: the reference's own, between its best two.
    """

    recipe: str
    case: int
    tokens: int
    verdict: str  # identical, near-tie or diverged
    at: int | None = None
    token: int | None = None
    gap: float | None = None
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    mean_acceptance_length: float = 1.0


def read_cases(file: Path) -> list[Case]:
    """The golden cases of a bundle. Raises BundleError naming the line."""
    cases = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        try:
            cases.append(Case(**json.loads(line)))
        except (ValueError, TypeError) as e:
            raise BundleError(f"{file}, line {number}: no golden case ({e}); compile the bundle again") from e
    return cases


def write_cases(cases: Iterable[Case], file: Path) -> None:
    file.write_text("".join(json.dumps(asdict(c)) + "\n" for c in cases), encoding="utf-8")


def read_prompts(file: Path) -> list[str]:
    """The texts of a prompts file. Raises PromptError naming the line."""
    return [prompt.text for prompt in prompts.read(file)]


def replay(
    session: Session, cases: list[Case], recipes: Iterable[str], tolerance: float,
    advance: Callable[[], None] = lambda: None,
) -> list[Replayed]:  # fmt: skip
    """Decode every case by every recipe in turn and hold the tokens against the reference's."""
    names, results = list(recipes), []
    for number, case in enumerate(cases):
        for name in names:
            got = session.generate(case.prompt_ids, len(case.token_ids), recipe=name, guard=False)
            found = judge(name, number, got.token_ids, case, tolerance)
            stats = got.stats
            results.append(
                replace(
                    found, seconds=stats.seconds, tokens_per_second=stats.tokens_per_second,
                    mean_acceptance_length=stats.mean_acceptance_length,
                )
            )  # fmt: skip
            advance()
    return results


def judge(name: str, number: int, token_ids: list[int], case: Case, tolerance: float) -> Replayed:
    """One case's tokens by `name`, held against the reference's."""
    verdict, at = compare(token_ids, case, tolerance)
    token = token_ids[at] if at is not None and at < len(token_ids) else None
    return Replayed(name, number, len(case.token_ids), verdict, at, token, None if at is None else case.gaps[at])


def compare(token_ids: list[int], case: Case, tolerance: float) -> tuple[str, int | None]:
    """identical; near-tie, if the reference itself was within `tolerance` of the other choice; or diverged."""
    pairs = zip(token_ids, case.token_ids, strict=False)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), None)
    if at is None:
        short = len(token_ids) < len(case.token_ids)
        return ("diverged", len(token_ids)) if short else ("identical", None)
    return ("near-tie" if case.gaps[at] < tolerance else "diverged"), at
