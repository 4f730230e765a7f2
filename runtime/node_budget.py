"""How many nodes of a draft tree pay, by their chances and by what a step of the target costs."""

from __future__ import annotations

from collections.abc import Sequence as Items
from itertools import accumulate, pairwise
from math import inf
from typing import Any

from .drafters import MOST_TOKENS, check_counts
from .errors import RecipeError

StepCosts = Items[tuple[int, float]]


class NodeBudget:
    """A rule for the size of a tree: as many of its best nodes as give most tokens for the time of a step.

    The value of a node is the chance that it is accepted. A step gives one token and the sum of the values, and costs
    what the narrowest width costs that holds the nodes and the pending token. Without costs, all nodes are taken.
    """

    def __init__(self, nodes: int, step_costs: StepCosts = ()) -> None:
        """Keep the parameters.

        Args:
            nodes: nodes below the pending token at most.
            step_costs: pairs of slots and the cost of a step of so many slots, from one slot on, as a multiple of the
                first. A step of fewer slots costs as much as the next pair says.

        Raises:
            RecipeError: a parameter is out of range, or the costs end before the widest step.
        """
        check_counts(num_speculative_tokens=nodes)
        self.nodes = nodes
        self._costs = _by_nodes(check_step_costs(step_costs), nodes)

    def best(self, values: Items[float]) -> list[int]:
        """Return the nodes to draft, the likeliest first. Of equals the earlier is the better.

        Args:
            values: the value of each node; that of the first one, the root, does not count.
        """
        order = sorted(range(1, len(values)), key=lambda node: (-values[node], node))[: self.nodes]
        if not self._costs:
            return order
        tokens = accumulate((values[node] for node in order), initial=1.0)
        speeds = [count / cost for count, cost in zip(tokens, self._costs, strict=False)]
        return order[: speeds.index(max(speeds))]


def check_step_costs(step_costs: Any) -> StepCosts:
    """Return the costs of steps if they are right. A manifest gives them, which a stranger may have written.

    Raises:
        RecipeError: they are not pairs that begin with one slot and grow.
    """
    pairs = step_costs if isinstance(step_costs, (list, tuple)) else [step_costs]
    right = all(isinstance(pair, (list, tuple)) and len(pair) == 2 and _is_cost(*pair) for pair in pairs)
    if right and pairs:
        right = pairs[0][0] == 1 and all(a[0] < b[0] for a, b in pairwise(pairs))
    if not right:
        raise RecipeError(
            f"step_costs is {step_costs!r}; give pairs of slots and a cost, from one slot on, such as "
            "[[1, 1.0], [4, 1.2]]"
        )
    return [(int(slots), float(cost)) for slots, cost in pairs]


def _is_cost(slots: Any, cost: Any) -> bool:
    return type(slots) is int and 1 <= slots <= 1 + MOST_TOKENS and type(cost) in (int, float) and 0 < cost < inf


def _by_nodes(step_costs: StepCosts, nodes: int) -> list[float]:
    """Return the cost of a step with 0, 1, … nodes; nothing if no costs are known."""
    if not step_costs:
        return []
    if step_costs[-1][0] < 1 + nodes:
        raise RecipeError(
            f"step_costs ends at {step_costs[-1][0]} slots; {nodes} tokens fill {1 + nodes}: give the cost of "
            f"{1 + nodes} slots too, or no costs"
        )
    return [next(cost for slots, cost in step_costs if slots > count) for count in range(1 + nodes)]
