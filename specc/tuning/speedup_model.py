"""What recipes would earn: shorter drafts and fewer widths than those that ran, by the cost of each call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from specc.runtime.recipe import Recipe
from specc.tuning.acceptance_stats import Calibration, Step
from specc.tuning.step_costs import StepCost

COUNTS = ("num_speculative_tokens", "prompt_lookup_num_tokens")  # parameters that say how long a draft may be
SHAPES = {"tree", "max_depth", "window_size"}  # parameters of drafts that are no chains
SLACK = 0.01  # of its speed: an engine that gives a recipe less is left out


@dataclass(frozen=True)
class Candidate:
    """A recipe with its parameters, and how many times as fast as plain decoding the cost model has it."""

    recipe: Recipe
    speedup: float


class Call(NamedTuple):
    """Of an engine: its slots, and what a call costs."""

    slots: int
    cost: float


def predicted(recipe: Recipe, got: Calibration, table: Mapping[str, StepCost]) -> list[Candidate]:
    """The best first. got: what the recipe came to. table: each engine's step, timed apart."""
    calls = _in_the_loop(table, got)

    def speedup(other: Recipe) -> float:
        return predict(other, recipe, got.steps, calls, got.outside)

    found = [trimmed(c, speedup) for c in candidates(recipe, calls)]
    return sorted((Candidate(c, speedup(c)) for c in found), key=lambda c: -c.speedup)


def candidates(recipe: Recipe, calls: Mapping[str, Call]) -> list[Recipe]:
    """The recipe as it is, and with shorter drafts where one parameter says how long they are."""
    counts = [name for name in COUNTS if name in recipe.parameters]
    if len(counts) != 1 or SHAPES & recipe.parameters.keys():
        return [recipe]

    def of(count: int) -> Recipe:
        held = next(i for i, name in enumerate(recipe.verify, 1) if calls[name].slots > count)
        return replace(recipe, parameters={**recipe.parameters, counts[0]: count}, verify=recipe.verify[:held])

    return [of(count) for count in range(1, recipe.parameters[counts[0]] + 1)]


def predict(recipe: Recipe, ran: Recipe, steps: Sequence[Step], calls: Mapping[str, Call], outside: float) -> float:
    """Tokens of `recipe` in a unit of cost, from the steps of `ran`, the same with longer drafts.

    outside: what a step costs that is in no engine.
    """
    cap = max([recipe.parameters[n] for n in COUNTS if n in recipe.parameters], default=0)
    same = recipe.parameters == ran.parameters
    verifiers = sorted(calls[name] for name in recipe.verify)
    tokens = cost = 0.0
    for step in steps:
        drafted = step.drafted if same else min(step.drafted, cap)
        verify = next((v for v in verifiers if v.slots > drafted), verifiers[-1])
        drafts = sum(calls[name].cost * (n if same else min(n, cap)) for name, n in step.draft_calls.items())
        tokens += 1 + (step.accepted if same else min(step.accepted, cap))
        cost += drafts + verify.cost + outside
    return tokens / cost


def trimmed(recipe: Recipe, speed_of: Callable[[Recipe], float]) -> Recipe:
    """The same without the widths that it is hardly slower without: each takes memory, its own file time to load."""
    least = (1 - SLACK) * speed_of(recipe)
    while True:
        fewer = [replace(recipe, verify=tuple(v for v in recipe.verify if v != name)) for name in recipe.verify[1:-1]]
        best = max(fewer, key=speed_of, default=None)
        if best is None or speed_of(best) < least:
            return recipe
        recipe = best


def _in_the_loop(table: Mapping[str, StepCost], got: Calibration) -> dict[str, Call]:
    """Costs as they were seen in the loop; those of engines that hardly ran there, in proportion."""
    factor = median([cost / table[name].milliseconds for name, cost in got.costs.items()] or [1.0])
    return {name: Call(step.slots, got.costs.get(name, factor * step.milliseconds)) for name, step in table.items()}
