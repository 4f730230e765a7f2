"""Methods whose drafts come from slots of the model's own run that stand on no token."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from specc.recipes.blocks import DECODE, RANKED_OUTPUTS, RANKS, count
from specc.recipes.defaults import TREES, WIDTHS
from specc.recipes.entry import Facts, Family, HeadFacts, Method, MethodBlocks, Parameter, Values
from specc.recipes.guess_trees import StateTree, expected, state_trees
from specc.runtime.block import Block
from specc.runtime.drafters import check_probability
from specc.runtime.errors import RecipeError
from specc.runtime.node_budget import check_step_costs

SIZES = (8, 12, 16, 24, 32, 48)  # slots of a step
SHARES = (6, 4, 3, 2)  # One of so many slots takes a drafted token. The others guess.


def _blocks(head: str, states: Sequence[StateTree]) -> MethodBlocks:
    """Return the blocks of steps, an engine for each state. Each verifies a draft, and its slots make the next."""
    steps = [Block(state.topology(head), RANKED_OUTPUTS) for state in states]
    engines = {f"step_{number}": block for number, block in enumerate(steps)}
    verify = sorted(dict.fromkeys(steps), key=lambda block: block.slots)
    return MethodBlocks((DECODE, *verify), engines, parts=frozenset(engines))


def _guesses(head: str, facts: Facts) -> int:
    """Return how many tokens a head guesses behind each token."""
    return facts.heads.get(head, HeadFacts()).stack


def _rates(values: Values, guesses: int) -> tuple[tuple[float, ...], ...]:
    """Return how often the guesses are right, by depth and rank. Raises RecipeError."""
    rates: Any = TREES.guess_rates if values["rates"] is None else values["rates"]
    if not isinstance(rates, (list, tuple)) or not all(isinstance(row, (list, tuple)) and row for row in rates):
        raise RecipeError(f"rates is {rates!r}; give a list for each depth, such as [[0.5, 0.1], [0.3, 0.1]]")
    if len(rates) < guesses:
        raise RecipeError(f"rates has {len(rates)} depths; the head guesses {guesses} tokens: give so many lists")
    for rate in (rate for row in rates for rate in row):
        check_probability(rates=rate)
    return tuple(tuple(map(float, row[:RANKS])) for row in rates[:guesses])


@lru_cache(64)
def _best_size(rates: tuple[tuple[float, ...], ...], costs: tuple[tuple[int, float], ...]) -> tuple[int, int]:
    """Return the drafted tokens and the guesses of the step that gives most tokens for its cost."""
    sizes = [(slots, cost, slots // share) for slots, cost in costs for share in SHARES if slots // share >= 1]
    if not sizes:
        raise RecipeError(f"step_costs is {list(costs)}; give the cost of a step of 4 slots or more, too")

    def speed(size: tuple[int, float, int]) -> float:
        slots, cost, nodes = size
        return expected(state_trees(rates, nodes, slots - 1 - nodes), rates) / cost

    slots, _, nodes = max(sizes, key=speed)
    return nodes, slots - 1 - nodes


def _plan_ppd(values: Values, facts: Facts) -> MethodBlocks:
    """Plan the tree of each state, of the size that pays or of the size that the user names."""
    rates = _rates(values, _guesses("ppd", facts))
    if values["step_costs"] is None:
        costs = [(slots, 1 + WIDTHS.wide_step + WIDTHS.slot * (slots - 1)) for slots in SIZES]
    else:
        costs = [(slots, cost) for slots, cost in check_step_costs(values["step_costs"]) if slots >= 4]
    nodes, guess_slots = _best_size(rates, tuple(costs))
    if values["num_speculative_tokens"] is not None:
        nodes = count(values, "num_speculative_tokens")
    if values["guess_slots"] is not None:
        guess_slots = count(values, "guess_slots")
    return _blocks("ppd", state_trees(rates, nodes, guess_slots))


PPD = Method(
    name="ppd",
    title="Parallel Prompt Decoding: trained embeddings behind each token, whose slots draft",
    try_when="Such a head was trained for the model, and a step with 16 slots costs little more than one slot.",
    about=(
        "Behind the tokens of a step stand slots with trained embeddings in the place of tokens. Each guesses a token "
        "further ahead. So the step that verifies a draft also makes the next one, and nothing else runs. Tokens that "
        "are likelier to be the last accepted one have more guesses behind them. The next step has a tree of its own "
        "for each number of guesses that the accepted token had."
    ),
    paper="Parallel Prompt Decoding, Chen et al. 2024, arXiv:2405.18628",
    departures=(
        "The trees are smaller, since a step with 60 slots costs much more on a CPU than on a GPU.",
        "A guess has one embedding; the paper can also average several.",
        "Acceptance is by match; the paper's typical acceptance is lossy, and a request can ask for it.",
    ),
    family=Family.HEADS,
    drafter="guess-slots",
    topology="static tree",
    length="budget",
    schedule="fused",
    plan=_plan_ppd,
    parameters={
        "num_speculative_tokens": Parameter(None, "tree nodes of a step (default: as many as pay by the costs)"),
        "guess_slots": Parameter(None, "guesses of a step (default: as many as pay by the costs)"),
        "rates": Parameter(
            None,
            "how often each guess is right, by depth and rank, as `acceptance.rates` of the head's card.json has it",
        ),
        "step_costs": Parameter(
            None,
            "pairs of slots and the cost of a step, of which the best is compiled (default: costs as of a CPU)",
            "measured on the GPU",
        ),
    },
    needs=("head",),
    head="ppd",
)
