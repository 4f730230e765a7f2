"""Compute the figures of a benchmark: medians over rounds, and each round's ratio to plain decoding in that round."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from specc.bench.systems import BASELINE, Key, Run
from specc.bench.tasks import Task
from specc.exactness.divergence import compare_texts
from specc.tuning.step_costs import median_and_spread

ALL = "all"  # The category of all prompts together.
Rounds = Sequence[Sequence[Run]]  # The runs of one mode, by round and prompt.


@dataclass(frozen=True, kw_only=True)
class Row:
    """The figures of one mode of one system on one category.

    Attributes:
        system: the name of the system.
        recipe: the name of its mode.
        category: the category of the prompts.
        tokens_per_second: the speed of decoding, without the tokens that came with the first one.
        speedup: that speed as a multiple of plain decoding's by specc.
        mean_acceptance_length: tokens that a step with a draft gives; None if the system does not report it.
        acceptance_per_position: the share of drafts of which at least 1, 2, … tokens were accepted; None if the
            system does not report it.
        seconds: the time of decoding in one round.
        spread: the interquartile range of tokens_per_second over the rounds, as a share of it; None for one round.
        end_to_end_tokens_per_second: the speed of prefill and decoding together, over all tokens.
        end_to_end_speedup: that speed as a multiple of plain decoding's by specc.
        prompts: how many prompts the category has.
        identical: the share of prompts whose tokens are those of plain decoding.
        changed: the share of tokens that are not those of plain decoding at their place.
        verify_share: the share of decoding time in which the target ran; None if the system does not report it. The
            engines of the drafter have what it and `host_share` leave.
        host_share: the share outside engines; None if the system does not report it.
    """

    system: str
    recipe: str
    category: str
    tokens_per_second: float
    speedup: float
    mean_acceptance_length: float | None
    acceptance_per_position: list[float] | None
    seconds: float
    spread: float | None
    end_to_end_tokens_per_second: float
    end_to_end_speedup: float
    prompts: int
    identical: float
    changed: float
    verify_share: float | None
    host_share: float | None


def mode_name(row: Row) -> str:
    """Name the mode of a row: the recipe, or the peer and its mode."""
    return row.recipe if row.system == BASELINE[0] else f"{row.system} {row.recipe}"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A comparison of specc's fastest mode with another system's fastest mode.

    Attributes:
        system: the other system.
        recipe: its fastest mode.
        own_recipe: specc's fastest recipe.
        ratio: specc's speed as a multiple of the other's, the median over rounds.
    """

    system: str
    recipe: str
    own_recipe: str
    ratio: float


def rows(runs: Mapping[Key, Rounds], tasks: Sequence[Task]) -> list[Row]:
    """Compute a row for each mode and category.

    Args:
        runs: the runs of every mode, with plain decoding by specc among them.
        tasks: the prompts that were run.

    Returns:
        The rows by mode. Where there are several categories, the last row of a mode is on all prompts.
    """
    categories = list(dict.fromkeys(task.category for task in tasks))
    if len(categories) > 1:
        categories.append(ALL)
    return [_row(runs, key, category, tasks) for key in runs for category in categories]


def compare(runs: Mapping[Key, Rounds], tasks: Sequence[Task]) -> list[Comparison]:
    """Compare specc's fastest mode with the fastest mode of each other system, on all prompts."""
    everything = range(len(tasks))
    rates = {key: _rates(rounds, everything, _decoding) for key, rounds in runs.items()}

    def fastest(system: str) -> Key:
        return max((key for key in rates if key[0] == system), key=lambda key: median(rates[key]))

    own = fastest(BASELINE[0])
    comparisons = []
    for system in dict.fromkeys(system for system, _ in runs if system != BASELINE[0]):
        other = fastest(system)
        ratio = median(a / b for a, b in zip(rates[own], rates[other], strict=True))
        comparisons.append(Comparison(system=system, recipe=other[1], own_recipe=own[1], ratio=ratio))
    return comparisons


def _row(runs: Mapping[Key, Rounds], key: Key, category: str, tasks: Sequence[Task]) -> Row:
    """Compute the row of one mode on one category."""
    prompts = [i for i, task in enumerate(tasks) if category in (ALL, task.category)]
    rounds, plain = runs[key], runs[BASELINE]
    rates, end_to_end = _rates(rounds, prompts, _decoding), _rates(rounds, prompts, _end_to_end)
    rate, spread = median_and_spread(rates)
    everything = [runs_of_round[i] for runs_of_round in rounds for i in prompts]
    same = sum(list(rounds[0][i].token_ids) == list(plain[0][i].token_ids) for i in prompts)
    return Row(
        system=key[0],
        recipe=key[1],
        category=category,
        tokens_per_second=rate,
        speedup=_median_ratio(rates, _rates(plain, prompts, _decoding)),
        mean_acceptance_length=_acceptance_length(everything),
        acceptance_per_position=_acceptance_per_position(everything),
        seconds=median(sum(runs_of_round[i].seconds for i in prompts) for runs_of_round in rounds),
        spread=spread,
        end_to_end_tokens_per_second=median(end_to_end),
        end_to_end_speedup=_median_ratio(end_to_end, _rates(plain, prompts, _end_to_end)),
        prompts=len(prompts),
        identical=same / len(prompts),
        changed=sum(compare_texts(rounds[0][i].token_ids, plain[0][i].token_ids).changed for i in prompts)
        / len(prompts),
        verify_share=_share(everything, lambda run: run.verify_seconds),
        host_share=_share(everything, lambda run: run.host_seconds),
    )


def _share(runs: Sequence[Run], part: Callable[[Run], float | None]) -> float | None:
    """Return the share of a part of the time of decoding in all of it; None if a run does not report the part."""
    parts = [seconds for run in runs if (seconds := part(run)) is not None]
    total = sum(run.seconds for run in runs)
    return sum(parts) / total if total and len(parts) == len(runs) else None


def _rates(rounds: Rounds, prompts: Sequence[int], measure: Callable[[Run], tuple[int, float]]) -> list[float]:
    """Compute the tokens a second of each round.

    Args:
        rounds: the runs of one mode.
        prompts: the numbers of the prompts that count.
        measure: returns the tokens and the seconds of a run.
    """
    rates = []
    for runs in rounds:
        measures = [measure(runs[i]) for i in prompts]
        tokens, seconds = sum(count for count, _ in measures), sum(time for _, time in measures)
        rates.append(tokens / seconds if seconds else 0.0)
    return rates


def _decoding(run: Run) -> tuple[int, float]:
    """Return the tokens and the seconds of decoding alone."""
    return len(run.token_ids) - run.first, run.seconds


def _end_to_end(run: Run) -> tuple[int, float]:
    """Return the tokens and the seconds of prefill and decoding."""
    return len(run.token_ids), run.prefill_seconds + run.seconds


def _median_ratio(rates: Sequence[float], others: Sequence[float]) -> float:
    """Return the median over rounds of the ratios of two speeds."""
    return median(a / b if b else 0.0 for a, b in zip(rates, others, strict=True))


def _acceptance_length(runs: Sequence[Run]) -> float | None:
    """Return the tokens that a step with a draft gives; None if a run does not report its drafts."""
    drafts = accepted = 0
    for run in runs:
        if run.drafts is None or run.accepted is None:
            return None
        drafts += run.drafts
        accepted += run.accepted
    return 1 + accepted / drafts if drafts else 1.0


def _acceptance_per_position(runs: Sequence[Run]) -> list[float] | None:
    """Return the share of drafts of which at least 1, 2, … tokens were accepted; None if a run does not report it."""
    if any(run.drafts is None or sum(run.histogram) != run.drafts for run in runs):
        return None
    drafts = sum(sum(run.histogram) for run in runs)
    if not drafts:
        return []
    deepest = max(len(run.histogram) for run in runs)
    return [sum(sum(run.histogram[depth:]) for run in runs) / drafts for depth in range(1, deepest)]
