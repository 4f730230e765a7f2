"""Predict the speed of a recipe with shorter drafts and fewer widths, from its steps and the costs of its calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from specc.runtime.recipe import Recipe
from specc.tuning.acceptance_stats import Calibration, Step
from specc.tuning.draft_replay import COSTS, DEPTH, NEVER, RATES, THRESHOLD, cut, ends_by_confidence
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

    recipes = [
        candidate if COSTS in candidate.parameters else drop_widths(candidate, speedup, slack)
        for candidate in candidates(recipe, calls)
    ]
    return sorted((Candidate(r, speedup(r)) for r in recipes), key=lambda candidate: -candidate.speedup)


def candidates(recipe: Recipe, calls: Mapping[str, Call]) -> list[Recipe]:
    """List the recipe with every draft length up to its own.

    A chain that ends by confidence alone gets every threshold besides. A tree that knows the costs of steps gets every
    depth besides, and the measured costs if it has none. A recipe whose draft has another shape, or whose length is
    not one parameter, is returned as it is. A shorter draft keeps no engine that is wider than it needs.
    """
    if COSTS in recipe.parameters:
        return _trees(recipe, calls)
    lengths = [name for name in LENGTHS if name in recipe.parameters]
    if len(lengths) != 1 or SHAPES & recipe.parameters.keys():
        return [recipe]
    parameter = lengths[0]

    thresholds: list[Mapping[str, float]] = [{}]
    if ends_by_confidence(recipe.parameters) and recipe.parameters[THRESHOLD] <= NEVER:
        thresholds = [{THRESHOLD: threshold} for threshold in TUNING.thresholds]

    def with_length(length: int, threshold: Mapping[str, float]) -> Recipe:
        enough = next(i for i, name in enumerate(recipe.verify, 1) if calls[name].slots > length)
        parameters = {**recipe.parameters, parameter: length, **threshold}
        return replace(recipe, parameters=parameters, verify=recipe.verify[:enough])

    every = range(1, recipe.parameters[parameter] + 1)
    return [with_length(length, threshold) for length in every for threshold in thresholds]


def _trees(recipe: Recipe, calls: Mapping[str, Call]) -> list[Recipe]:
    """List the recipe with the measured costs of its steps and every depth of the head's tree.

    A copy of the text is not bounded by the depth. Then the depth stays, since a record does not tell copies apart.
    """
    one, *others = sorted(calls[name] for name in recipe.verify)
    measured_costs = [[call.slots, round(call.cost / one.cost, 3)] for call in (one, *others)]  # As JSON has it.
    costs = recipe.parameters[COSTS] or measured_costs
    deepest = recipe.parameters[DEPTH]
    depths = [deepest] if RATES in recipe.parameters else range(1, deepest + 1)
    return [replace(recipe, parameters={**recipe.parameters, COSTS: costs, DEPTH: depth}) for depth in depths]


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

    def at_most(count: float) -> float:
        return count if unchanged else min(count, longest)

    tokens = cost = 0.0
    for step in steps:
        draft_calls: Mapping[str, float]
        if step.record and not unchanged:
            smaller = cut(step.record, recipe.parameters, original.parameters)
            drafted, accepted = float(smaller.drafted), float(min(step.accepted, smaller.accepted))
            draft = recipe.engines.get("draft", "")
            draft_calls = {
                name: max(0.0, count - smaller.fewer_calls) if name == draft else count
                for name, count in step.draft_calls.items()
            }
        else:
            drafted, accepted = at_most(step.drafted), at_most(step.accepted)
            draft_calls = {name: at_most(count) for name, count in step.draft_calls.items()}
        verify = next((call for call in verifiers if call.slots > drafted), verifiers[-1])
        drafting = sum(calls[name].cost * count for name, count in draft_calls.items())
        tokens += 1 + accepted
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
