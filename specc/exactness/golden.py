"""Golden outputs: what the original model says, kept in the bundle and replayed through the runtime. No torch."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from specc import prompts
from specc.runtime.bundle import Bundle
from specc.runtime.errors import BundleError, CaptureError, first_line
from specc.runtime.manifest import Manifest, ModelSpec
from specc.runtime.manifest_checks import TOLERANCE
from specc.runtime.sampling_defaults import PLAIN_GREEDY
from specc.runtime.sequence import Cache
from specc.runtime.session import Session
from specc.runtime.width_invariance import is_lossless

FILE = "golden.jsonl"
MOST = sys.float_info.max  # a whole number of JSON may be more, and infinity is


class Verdict(StrEnum):
    """A judgement on replayed tokens, by the first that differs from the golden ones."""

    IDENTICAL = "identical"
    NEAR_TIE = "near-tie"  # the reference itself hardly preferred its token to the next one
    DIVERGED = "diverged"
    LOSSY = "lossy"  # they differ, and the recipe is not lossless, or only near at this target


@dataclass(frozen=True)
class Case:
    """A golden case.

    Attributes:
        prompt: the text.
        prompt_ids: its tokens.
        token_ids: the reference's greedy tokens after it.
        gaps: at each of those tokens, the difference of the reference's two best logits.
    """

    prompt: str
    prompt_ids: list[int]
    token_ids: list[int]
    gaps: list[float]

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, str):
            raise TypeError("prompt is not text")
        for name, ids in (("prompt_ids", self.prompt_ids), ("token_ids", self.token_ids)):
            if not isinstance(ids, list) or any(type(i) is not int or i < 0 for i in ids):
                raise TypeError(f"{name} is not a list of token ids")
        if not isinstance(self.gaps, list) or any(type(g) not in (int, float) or not 0 <= g <= MOST for g in self.gaps):
            raise TypeError("gaps is not a list of finite numbers, 0 or more")


@dataclass(frozen=True)
class Replayed:
    """A golden case, decoded by one recipe.

    Attributes:
        recipe: its name, or what else the tokens come from.
        case: index of the case.
        tokens: golden tokens of the case.
        verdict: how the tokens compare.
        at: index of the first token that differs, None if there is none.
        token: the token that stands there, None if the text ended.
        expected: the token that should stand there, None if no token differs.
        gap: the reference's gap there, None if no token differs.
        seconds: time of the decoding, the prompt's left out.
        tokens_per_second: speed of the decoding.
        mean_acceptance_length: tokens a step.
        plain_seconds: time of plain decoding through the same engine, where tokens were compared with that.
        engine: the engine that made the token that differs, empty if no token differs or nobody knows.
        best: where a token differs: the two likeliest tokens by the bundle's own decode engine, with their logits.
    """

    recipe: str
    case: int
    tokens: int
    verdict: Verdict
    at: int | None = None
    token: int | None = None
    expected: int | None = None
    gap: float | None = None
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    mean_acceptance_length: float = 1.0
    plain_seconds: float = 0.0
    engine: str = ""
    best: tuple[tuple[int, float], ...] = ()

    def explanation(self) -> str:
        """Say where the tokens differ, and how sure the reference was there. Empty if no token differs."""
        if self.at is None:
            return ""
        token = "the end" if self.token is None else f"token {self.token}"
        engine = f" by engine {self.engine}" if self.engine else ""
        own = " and ".join(f"{logit:.6f} of token {best}" for best, logit in self.best)
        return (
            f"token {self.at} of {self.tokens} is {self.expected}, and {self.recipe} gave {token}{engine}; "
            f"the reference's two best logits differ by {self.gap:.6f} there"
        ) + (f", and the bundle's are {own}" if own else "")


def read_cases(file: Path) -> list[Case]:
    """Read the golden cases of a bundle.

    Raises:
        BundleError: the file is not text, or a line is not a golden case. The message names the line.
    """
    cases = []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except ValueError as e:
        raise BundleError(f"{file} is not text ({first_line(e)}); compile the bundle again") from e
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            cases.append(Case(**json.loads(line)))
        except (ValueError, TypeError, RecursionError) as e:
            reason = first_line(e)
            raise BundleError(f"{file}, line {number}: not a golden case ({reason}); compile the bundle again") from e
    return cases


def cases_of(bundle: Bundle) -> list[Case]:
    """Read the golden cases of an opened bundle. Raises BundleError as `read_cases` does."""
    return read_cases(bundle.file(FILE))


def checked_cases(bundle: Bundle) -> list[Case]:
    """Compare the SHA-256 of each file of a bundle with its manifest, and return the golden cases.

    Raises:
        BundleError: a file was changed, or the cases are not of this model, or would pass nearly any answer.
    """
    bundle.check()
    cases = cases_of(bundle)
    check_cases(cases, bundle.manifest.model)
    check_gaps(cases, implied_tolerance(bundle.manifest), FILE)
    return cases


def implied_tolerance(manifest: Manifest) -> float:
    """Return the tolerance of a test that names none: the bundle's, but never more than that of a near-tie in fp32.

    Bundles of earlier versions with narrow weights have a wider one, which hides that their recipes are only near.
    """
    return min(manifest.near_tie_tolerance, TOLERANCE)


def check_cases(cases: Sequence[Case], model: ModelSpec) -> None:
    """Check that golden cases are of a model, and that there are any: a test of none would prove nothing.

    Raises:
        BundleError: there is no case, or one that the model cannot have given, or two of one prompt.
    """
    if not cases:
        raise BundleError(f"{FILE} has no golden cases, so there is nothing to test; compile the bundle again")
    for number, case in enumerate(cases, 1):
        tokens = [*case.prompt_ids, *case.token_ids]
        if not case.prompt_ids or not case.token_ids or len(tokens) > model.context:
            reason = f"it has {len(case.prompt_ids)} and {len(case.token_ids)} tokens, of a context of {model.context}"
        elif max(tokens) >= model.vocab_size:
            reason = f"token {max(tokens)} is not in the vocabulary of {model.vocab_size}"
        else:
            continue
        raise BundleError(f"{FILE}, case {number}: {reason}; compile the bundle again")
    check_prompts(cases, FILE)


def check_prompts(cases: Sequence[Case], name: str) -> None:
    """Check that no two golden cases have the same tokens as prompt: a copy counts as a case and proves nothing.

    Args:
        cases: golden cases.
        name: that of their file, for the message.

    Raises:
        BundleError: two cases have one prompt.
    """
    first: dict[tuple[int, ...], int] = {}
    for number, case in enumerate(cases, 1):
        if (other := first.setdefault(tuple(case.prompt_ids), number)) != number:
            reason = f"cases {other} and {number} have one prompt, and a copy proves nothing"
            raise BundleError(f"{name}: {reason}; compile the bundle again")


def check_reference(reference: str | None) -> None:
    """Refuse a reference without a name, such as that of a variable that is not set: the test would prove less.

    Raises:
        CaptureError: it is empty.
    """
    if reference is not None and not reference.strip():
        raise CaptureError("the reference has no name; name a model directory or a hub id, or leave out --reference")


def check_gaps(cases: Sequence[Case], tolerance: float, name: str) -> None:
    """Check that golden cases can fail: where a gap is below the tolerance, any token passes as a near-tie.

    Args:
        cases: golden cases.
        tolerance: the gap of logits below which a difference is a near-tie.
        name: that of their file, for the message.

    Raises:
        BundleError: a case has no gap for each token, or more than half of its gaps are below the tolerance.
    """
    for number, case in enumerate(cases, 1):
        count, ties = len(case.gaps), sum(gap < tolerance for gap in case.gaps)
        if not case.gaps or count != len(case.token_ids):
            reason = f"it has {count} gaps for {len(case.token_ids)} tokens; compile the bundle again"
        elif 2 * ties > count:
            reason = f"{ties} of its {count} gaps are below the tolerance of {tolerance:g}, so nearly any answer would "
            reason += "pass; compile the bundle again, or give a smaller tolerance"
        else:
            continue
        raise BundleError(f"{name}, case {number}: {reason}")


def write_cases(cases: Iterable[Case], file: Path) -> None:
    """Write golden cases, a JSON object a line."""
    file.write_text("".join(json.dumps(asdict(case)) + "\n" for case in cases), encoding="utf-8")


def read_prompts(file: Path) -> list[str]:
    """Read the texts of a prompts file. Raises PromptError, which names the line."""
    return [prompt.text for prompt in prompts.read(file)]


def replay(
    session: Session,
    cases: Sequence[Case],
    recipes: Iterable[str],
    tolerance: float,
    advance: Callable[[], None] = lambda: None,
) -> list[Replayed]:
    """Decode each case by each recipe and compare the tokens with the golden ones.

    Args:
        session: the bundle, loaded. Its guard stays off, so that a recipe drafts at every step.
        cases: golden cases.
        recipes: names of recipes of the bundle.
        tolerance: a gap of logits below which a difference is a near-tie.
        advance: a function that is called after each replay.

    Returns:
        A result for each case and recipe; those of one case stand together.
    """
    names, results = list(recipes), []
    for number, case in enumerate(cases):
        for name in names:
            count = len(case.token_ids)
            generation = session.generate(case.prompt_ids, count, recipe=name, **PLAIN_GREEDY, guard=False)
            judgement = judge(name, number, generation.token_ids, case, tolerance)
            is_lossy = judgement.verdict is Verdict.DIVERGED and not generation.stats.lossless
            result = replace(
                judgement,
                verdict=Verdict.LOSSY if is_lossy else judgement.verdict,
                seconds=generation.stats.seconds,
                tokens_per_second=generation.stats.tokens_per_second,
                mean_acceptance_length=generation.stats.mean_acceptance_length,
            )
            results.append(result)
            advance()
    return results


def replay_exactly(
    session: Session, cases: Sequence[Case], recipes: Iterable[str], advance: Callable[[], None] = lambda: None
) -> list[Replayed]:
    """Decode each case by each recipe through one engine, and compare with plain decoding through that engine.

    The tokens must be equal: no difference is a near-tie. The arguments are those of `replay`.
    """
    names, results = list(recipes), []
    for number, case in enumerate(cases):
        for name in names:
            length = len(case.token_ids)
            plain = session.generate(case.prompt_ids, length, recipe="plain", **PLAIN_GREEDY, exact=name)
            generation = session.generate(case.prompt_ids, length, recipe=name, **PLAIN_GREEDY, guard=False, exact=True)
            expected = Case(case.prompt, case.prompt_ids, plain.token_ids, [0.0] * len(plain.token_ids))
            result = replace(
                judge(name, number, generation.token_ids, expected, tolerance=0.0),
                seconds=generation.stats.seconds,
                tokens_per_second=generation.stats.tokens_per_second,
                mean_acceptance_length=generation.stats.mean_acceptance_length,
                plain_seconds=plain.stats.seconds,
            )
            results.append(result)
            advance()
    return results


def name_engines(session: Session, cases: Sequence[Case], results: Iterable[Replayed]) -> list[Replayed]:
    """Return results of `replay` with the engine that made the token that differs. Those cases are decoded again."""
    return [
        result if result.at is None else replace(result, engine=_engine_of(session, cases[result.case], result))
        for result in results
    ]


def _engine_of(session: Session, case: Case, result: Replayed) -> str:
    """Decode a case again, and return the engine that made the token that differs; empty if the answer ends before."""
    stream = session.stream(case.prompt_ids, len(case.token_ids), recipe=result.recipe, **PLAIN_GREEDY, guard=False)
    engines = [session.engines[name] for name in ("prefill", "decode", *session.bundle.recipe(result.recipe).verify)]
    at = 0 if result.at is None else result.at
    while not stream.ended and len(stream.token_ids) <= at:
        calls = [engine.calls for engine in engines]
        stream.advance()
        if len(stream.token_ids) > at:
            return next(engine.name for engine, before in zip(engines, calls, strict=True) if engine.calls > before)
    return ""


def add_best_logits(session: Session, cases: Sequence[Case], results: Iterable[Replayed]) -> list[Replayed]:
    """Return results with the two best logits where a token differs. The session forgets its conversation's rows."""
    complete = [
        result if result.at is None else replace(result, best=_two_best(session, cases[result.case], result.at))
        for result in results
    ]
    session.cache.sync([])
    return complete


def confirm_near_ties(bundle: Bundle, results: Iterable[Replayed]) -> list[Replayed]:
    """Return results of `add_best_logits`, without the near-ties that the bundle's own logits contradict.

    The gaps stand in a file. At a near-tie both tokens are among the two best of the bundle, too. If they are not, the
    difference is a divergence, or lossy as the recipe is.
    """
    return [_contradicted(bundle, result) if _is_contradicted(result) else result for result in results]


def _is_contradicted(result: Replayed) -> bool:
    tokens = {token for token, _ in result.best}
    return result.verdict is Verdict.NEAR_TIE and bool(tokens) and not {result.token, result.expected} <= tokens


def _contradicted(bundle: Bundle, result: Replayed) -> Replayed:
    lossless = is_lossless(bundle.manifest, bundle.recipe(result.recipe))
    return replace(result, verdict=Verdict.DIVERGED if lossless else Verdict.LOSSY)


def _two_best(session: Session, case: Case, at: int) -> tuple[tuple[int, float], ...]:
    """Return the two likeliest tokens after the golden ones before `at`, with their logits, the best first."""
    tokens = [*case.prompt_ids, *case.token_ids[:at]]
    engine = session.engines.prefill(len(tokens))
    row = engine.extend(Cache(session.cache.store), tokens)
    if engine.outputs.logits_NV is None:
        return ()
    logits_V = engine.outputs.logits_NV[row]
    best = np.argsort(-logits_V, kind="stable")[:2]
    return tuple((int(token), round(float(logits_V[token]), 6)) for token in best)


def judge(name: str, number: int, token_ids: Sequence[int], case: Case, tolerance: float) -> Replayed:
    """Compare tokens with those of case `number`. `name` says what they come from."""
    verdict, at = compare(token_ids, case, tolerance)
    return Replayed(
        recipe=name,
        case=number,
        tokens=len(case.token_ids),
        verdict=verdict,
        at=at,
        token=token_ids[at] if at is not None and at < len(token_ids) else None,
        expected=None if at is None else case.token_ids[at],
        gap=None if at is None else case.gaps[at],
    )


def compare(token_ids: Sequence[int], case: Case, tolerance: float) -> tuple[Verdict, int | None]:
    """Compare tokens with the golden ones.

    The first difference decides. It is a near-tie if the reference's gap there is below `tolerance`, since then its own
    choice is a matter of rounding. A text that ends early has diverged.

    Returns:
        The verdict, and the index of the first difference or None.
    """
    pairs = zip(token_ids, case.token_ids, strict=False)
    at = next((i for i, (token, golden) in enumerate(pairs) if token != golden), None)
    if at is not None:
        return (Verdict.NEAR_TIE if case.gaps[at] < tolerance else Verdict.DIVERGED), at
    if len(token_ids) < len(case.token_ids):
        return Verdict.DIVERGED, len(token_ids)
    return Verdict.IDENTICAL, None
