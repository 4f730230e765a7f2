"""From runs to figures: medians over rounds, and each round's ratio to plain decoding in that round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from specc.bench.systems import Run
from specc.tuning.step_costs import middle

ALL = "all"
Key = tuple[str, str]  # system and mode
Rounds = Sequence[Sequence[Run]]  # by round, by prompt
BASELINE: Key = ("specc", "plain")


@dataclass(frozen=True)
class Task:
    """A prompt as tokens, and the group that it is reported in."""

    ids: list[int]
    category: str


@dataclass(frozen=True)
class Row:
    """One mode of one system on one category.

    tokens_per_second: tokens after the first by the seconds that they took. end_to_end_…: all tokens, prefill
    included. speedup: over plain decoding by specc. spread: the interquartile range of tokens_per_second over rounds,
    as a share of it. identical: the share of prompts whose tokens are those of plain decoding.
    acceptance_per_position: the share of drafts of which at least 1, 2, … tokens were kept. None: not told.
    """

    system: str
    recipe: str
    category: str
    tokens_per_second: float
    speedup: float
    mean_acceptance_length: float | None
    acceptance_per_position: list[float] | None
    seconds: float
    spread: float
    end_to_end_tokens_per_second: float
    end_to_end_speedup: float
    prompts: int
    identical: float


def rows(runs: Mapping[Key, Rounds], tasks: Sequence[Task]) -> list[Row]:
    """A row a mode and category, the last category being all prompts where there are several."""
    names = list(dict.fromkeys(t.category for t in tasks))
    if len(names) > 1:
        names.append(ALL)
    return [_row(runs, key, category, tasks) for key in runs for category in names]


def best(runs: Mapping[Key, Rounds], tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Each peer's fastest mode, and by how much specc's fastest is faster: the median over rounds."""
    rates = {key: _rates(rounds, range(len(tasks)), _decoding) for key, rounds in runs.items()}

    def fastest(system: str) -> Key:
        return max((key for key in rates if key[0] == system), key=lambda key: median(rates[key]))

    own = fastest(BASELINE[0])
    found = []
    for system in dict.fromkeys(system for system, _ in runs if system != BASELINE[0]):
        theirs = fastest(system)
        pairs = zip(rates[own], rates[theirs], strict=True)
        ratio = median(mine / other for mine, other in pairs)
        found.append({"system": system, "recipe": theirs[1], "own_recipe": own[1], "ratio": ratio})
    return found


def _row(runs: Mapping[Key, Rounds], key: Key, category: str, tasks: Sequence[Task]) -> Row:
    at = [i for i, t in enumerate(tasks) if category in (ALL, t.category)]
    rounds, plain = runs[key], runs[BASELINE]
    rates, whole = _rates(rounds, at, _decoding), _rates(rounds, at, _end_to_end)
    rate, spread = middle(rates)
    mine = [r[i] for r in rounds for i in at]
    return Row(
        *key, category, rate, _ratio(rates, _rates(plain, at, _decoding)), _length(mine), _per_position(mine),
        median(sum(r[i].seconds for i in at) for r in rounds), spread, median(whole),
        _ratio(whole, _rates(plain, at, _end_to_end)), len(at),
        sum(list(rounds[0][i].token_ids) == list(plain[0][i].token_ids) for i in at) / len(at),
    )  # fmt: skip


def _rates(rounds: Rounds, at: Sequence[int], what: Callable[[Run], tuple[int, float]]) -> list[float]:
    """Tokens per second of each round."""
    sums = [[what(r[i]) for i in at] for r in rounds]
    return [sum(n for n, _ in each) / (sum(s for _, s in each) or float("inf")) for each in sums]


def _decoding(run: Run) -> tuple[int, float]:
    return len(run.token_ids) - run.first, run.seconds


def _end_to_end(run: Run) -> tuple[int, float]:
    return len(run.token_ids), run.prefill_seconds + run.seconds


def _ratio(rates: Sequence[float], others: Sequence[float]) -> float:
    return median(a / b if b else 0.0 for a, b in zip(rates, others, strict=True))


def _length(runs: Sequence[Run]) -> float | None:
    if any(r.drafts is None or r.accepted is None for r in runs):
        return None
    drafts, accepted = sum(r.drafts or 0 for r in runs), sum(r.accepted or 0 for r in runs)
    return 1 + accepted / drafts if drafts else 1.0


def _per_position(runs: Sequence[Run]) -> list[float] | None:
    if any(r.drafts is None or sum(r.histogram) != r.drafts for r in runs):
        return None
    drafts = sum(r.drafts or 0 for r in runs)
    deepest = max((len(r.histogram) for r in runs), default=0)
    return [sum(sum(r.histogram[d:]) for r in runs) / drafts for d in range(1, deepest)] if drafts else []
