"""Cut recorded drafts to those that other parameters would have made.

A drafter that states how likely each slot is says with that which of them a smaller draft would hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from specc.runtime.draft import Draft
from specc.runtime.node_budget import NodeBudget
from specc.runtime.recipe import Recipe

# The parameters of drafters that decide how large a draft is.
NODES, DEPTH, COSTS, RATES = "num_speculative_tokens", "max_depth", "step_costs", "match_rates"
THRESHOLD, SCHEDULE = "assistant_confidence_threshold", "num_assistant_tokens_schedule"
NEVER = 1e-9  # A threshold that ends no draft, and lets the drafter state its probabilities.


@dataclass(frozen=True)
class DraftRecord:
    """A draft whose drafter said how likely each slot is.

    Attributes:
        parents: the parent of each slot.
        values: the chance of each slot to be accepted, as the drafter saw it.
        path: the slots that were accepted, from slot 0 on.
    """

    parents: tuple[int, ...]
    values: tuple[float, ...]
    path: tuple[int, ...]

    @classmethod
    def of(cls, draft: Draft, path: tuple[int, ...]) -> DraftRecord | None:
        """Return the record of a draft, or None if the drafter says nothing of its slots."""
        return cls(draft.tree.parents, draft.values, path) if draft.values else None

    @property
    def depths(self) -> tuple[int, ...]:
        """The level of each slot."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(depths[parent] + 1 if depths else 0)
        return tuple(depths)


@dataclass(frozen=True)
class Cut:
    """A draft as other parameters would have made it.

    Attributes:
        drafted: its slots below the pending token.
        accepted: how many of them would be accepted.
        fewer_calls: how many calls of the engine that drafts it would save.
    """

    drafted: int
    accepted: int
    fewer_calls: int


def opened(recipe: Recipe) -> Recipe:
    """Return a recipe with drafts as large as they can be, which say of each slot how likely it is."""
    changes: dict[str, Any] = {COSTS: []} if COSTS in recipe.parameters else {}
    if ends_by_confidence(recipe.parameters) and not recipe.parameters[THRESHOLD]:
        changes[THRESHOLD] = NEVER
    return replace(recipe, parameters={**recipe.parameters, **changes}) if changes else recipe


def ends_by_confidence(parameters: Mapping[str, Any]) -> bool:
    """Tell whether a number of tokens and a threshold of confidence say all of a draft, which is a chain."""
    return {NODES, THRESHOLD} == {NODES, THRESHOLD} & parameters.keys() and parameters.keys() <= {
        NODES,
        THRESHOLD,
        SCHEDULE,
    }


def cut(record: DraftRecord, parameters: Mapping[str, Any], original: Mapping[str, Any]) -> Cut:
    """Return what other parameters would have drafted at the place of a record.

    Args:
        record: the draft.
        parameters: the other parameters.
        original: those that drafted it.
    """
    if COSTS in parameters:
        depths = record.depths
        slots = _slots_that_pay(record, depths, parameters)
        deepest = max((depths[slot] for slot in slots), default=0)
        # A level is run if it has a slot that is drafted, but for the last level.
        fewer_calls = min(max(depths), original[DEPTH] - 1) - min(deepest, parameters[DEPTH] - 1)
    else:
        # Another stop ended the draft where it was recorded. Then a smaller number of tokens alone makes it shorter.
        threshold = parameters[THRESHOLD] if ends_by_confidence(parameters) else 0.0
        slots = _sure_slots(record, parameters[NODES], threshold)
        fewer_calls = len(record.parents) - 1 - len(slots)
    accepted = next((i for i, slot in enumerate(record.path[1:]) if slot not in slots), len(record.path) - 1)
    return Cut(len(slots), accepted, max(0, fewer_calls))


def _slots_that_pay(record: DraftRecord, depths: Sequence[int], parameters: Mapping[str, Any]) -> set[int]:
    """Return the slots that a tree would have. `max_depth` does not bound a copy of the text."""
    deepest = max(depths) if RATES in parameters else parameters[DEPTH]
    values = [value if depth <= deepest else 0.0 for value, depth in zip(record.values, depths, strict=True)]
    return {slot for slot in NodeBudget(parameters[NODES], parameters[COSTS]).best(values) if values[slot] > 0}


def _sure_slots(record: DraftRecord, count: int, threshold: float) -> set[int]:
    """Return the slots of a chain up to the first one of little confidence, `count` at most."""
    slots: set[int] = set()
    for slot in range(1, 1 + min(count, len(record.parents) - 1)):
        slots.add(slot)
        if record.values[slot] < threshold * record.values[slot - 1]:
            break
    return slots
