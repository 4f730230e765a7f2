"""Predict the speed of a recipe with shorter drafts and fewer widths, from its steps and the costs of its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from specc.runtime.recipe import Recipe
from specc.tuning.acceptance_stats import Calibration, Step
from specc.tuning.policy import TUNING
from specc.tuning.step_costs import StepCost

LENGTHS = ("num_speculative_tokens", "prompt_lookup_num_tokens")  # These parameters bound the length of a draft.
SHAPES = {"tree", "max_depth", "window_size"}  # Drafts with one of these parameters are not chains.


@dataclass(frozen=True)
class Candidate:
    """A recipe with parameters that may pay.

    Attributes:
        recipe: the recipe with its parameters.
        speedup: the predicted speed, as a multiple of plain decoding's.
    """

    recipe: Recipe
    speedup: float


class Call(NamedTuple):
    """A call of an engine: the slots that it has, and its cost."""

    slots: int
    cost: float


def rank_candidates(
    recipe: Recipe, calibration: Calibration, costs: Mapping[str, StepCost], slack: float = TUNING.width_slack
) -> list[Candidate]:
    """Predict a recipe's speed for each draft length, without the widths that hardly help.

    Args:
        recipe: the recipe as it ran.
        calibration: what the run showed.
        costs: the cost of a step of each engine, timed apart.
        slack: the share of its speed that the recipe may lose when a width is left out.

    Returns:
        One candidate for each length, the fastest first.
    """
    calls = _call_costs(calibration, costs)

    def speedup(candidate: Recipe) -> float:
        return predict(candidate, recipe, calibration.steps, calls, calibration.outside)

    recipes = [drop_widths(candidate, speedup, slack) for candidate in candidates(recipe, calls)]
    return sorted((Candidate(r, speedup(r)) for r in recipes), key=lambda candidate: -candidate.speedup)


def candidates(recipe: Recipe, calls: Mapping[str, Call]) -> list[Recipe]:
    """List the recipe with every draft length up to its own.

    A recipe whose draft has another shape, or whose length is not one parameter, is returned as it is. A shorter draft
    keeps no engine that is wider than it needs.
    """
    lengths = [name for name in LENGTHS if name in recipe.parameters]
    if len(lengths) != 1 or SHAPES & recipe.parameters.keys():
        return [recipe]
    parameter = lengths[0]

    def with_length(length: int) -> Recipe:
        enough = next(i for i, name in enumerate(recipe.verify, 1) if calls[name].slots > length)
        parameters = {**recipe.parameters, parameter: length}
        return replace(recipe, parameters=parameters, verify=recipe.verify[:enough])

    return [with_length(length) for length in range(1, recipe.parameters[parameter] + 1)]


def predict(
    recipe: Recipe, original: Recipe, steps: Sequence[Step], calls: Mapping[str, Call], outside: float
) -> float:
    """Predict the tokens that a recipe gives in one unit of cost.

    Args:
        recipe: the original with other draft lengths or widths.
        original: the recipe that ran.
        steps: the steps of `original`. They are cut to the drafts that `recipe` would make.
        calls: slots and cost of each engine's call.
        outside: the cost of a step that no engine call accounts for.
    """
    longest = max([recipe.parameters[name] for name in LENGTHS if name in recipe.parameters], default=0)
    unchanged = recipe.parameters == original.parameters
    verifiers = sorted(calls[name] for name in recipe.verify)

    def cut(count: float) -> float:
        return count if unchanged else min(count, longest)

    tokens = cost = 0.0
    for step in steps:
        drafted = cut(step.drafted)
        verify = next((call for call in verifiers if call.slots > drafted), verifiers[-1])
        drafting = sum(calls[name].cost * cut(count) for name, count in step.draft_calls.items())
        tokens += 1 + cut(step.accepted)
        cost += drafting + verify.cost + outside
    return tokens / cost


def drop_widths(recipe: Recipe, speed: Callable[[Recipe], float], slack: float = TUNING.width_slack) -> Recipe:
    """Leave out the widths that hardly make a recipe faster, since each takes memory and time to load.

    Args:
        recipe: a recipe that verifies with several widths. Its narrowest and its widest stay.
        speed: predicts the speed of a recipe.
        slack: the share of the speed that may be lost in all.
    """
    least = (1 - slack) * speed(recipe)
    while True:
        fewer = [
            replace(recipe, verify=tuple(name for name in recipe.verify if name != width))
            for width in recipe.verify[1:-1]
        ]
        best = max(fewer, key=speed, default=None)
        if best is None or speed(best) < least:
            return recipe
        recipe = best


def _call_costs(calibration: Calibration, costs: Mapping[str, StepCost]) -> dict[str, Call]:
    """Combine the costs of calls.

    The cost that the decoding loop showed counts where there is one, since an engine that runs alone finds warmer
    caches. Engines that hardly ran take their own measured cost, scaled as the others' costs are.
    """
    ratios = [cost / costs[name].milliseconds for name, cost in calibration.costs.items()]
    scale = median(ratios or [1.0])
    return {
        name: Call(step.slots, calibration.costs.get(name, scale * step.milliseconds)) for name, step in costs.items()
    }
