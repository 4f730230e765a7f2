"""Predict how much faster a head makes decoding, from its acceptance and the measured costs of a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from specc.heads import Head
from specc.training.acceptance import CHAIN, Acceptance

LEAST = 1.05  # times as fast as plain decoding: what a head must promise to be called useful


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The predicted speed of drafting chains with a head.

    Attributes:
        speedup: times as fast as plain decoding.
        drafted: the tokens of the chain that gives it.
        step: the cost of the draft for each of its tokens, as a share of a decode. It is estimated by the bytes that
            both read.
        useful: whether the speed-up reaches LEAST.
    """

    speedup: float
    drafted: int
    step: float
    useful: bool

    @property
    def tokens(self) -> str:
        """The drafted tokens in words."""
        return f"{self.drafted} drafted token{'' if self.drafted == 1 else 's'}"


def predict(head: Head, acceptance: Acceptance, costs: Mapping[int, float], parameters: int) -> Gain | None:
    """Predict the gain of chains.

    Args:
        head: the head.
        acceptance: what it reaches on held-out text.
        costs: the cost of a step of the model by its slots, as a multiple of a decode.
        parameters: of the model.

    Returns:
        The gain of the best chain, or None if no cost is known.
    """
    return predict_chains(lambda drafted: head.draft_cost(drafted, parameters), head.step_slots, acceptance, costs)


def predict_chains(
    draft: Callable[[int], float], slots: Callable[[int], int], acceptance: Acceptance, costs: Mapping[int, float]
) -> Gain | None:
    """Predict the gain of chains by what a draft costs.

    Args:
        draft: returns what a draft of so many tokens costs, as a share of a decode.
        slots: returns the slots of the step that verifies so many drafted tokens.
        acceptance: what the drafts reach on held-out text.
        costs: the cost of a step of the model by its slots, as a multiple of a decode.

    Returns:
        The gain of the best chain, or None if no cost is known.
    """
    options = [
        (expected(acceptance, drafted) / (_cost(costs, slots(drafted)) + draft(drafted)), drafted)
        for drafted in range(1, min(CHAIN, len(acceptance.by_depth)) + 1)
        if max(costs, default=0) >= slots(drafted)
    ]
    if not options:
        return None
    speedup, drafted = max(options)
    step = round(draft(drafted) / drafted, 4)
    return Gain(speedup=round(speedup, 3), drafted=drafted, step=step, useful=speedup >= LEAST)


def verdict(gain: Gain | None, what: str) -> str:
    """Say in words what a gain means.

    Args:
        gain: the gain; None if no costs are known.
        what: names what was trained.
    """
    if gain is None:
        return "unknown; name a tuned bundle with --costs to predict it"
    doubt = "" if gain.useful else f"; {what} is not useful on this machine"
    return f"{gain.speedup:.2f} x plain decoding predicted, with {gain.tokens} a step{doubt}"


def is_useless(gain: Gain | None, acceptance: Acceptance) -> bool:
    """Tell whether drafts promise too little to be compiled.

    Their gain is known and below LEAST, or they give fewer tokens a step than that. Steps with drafts cost no less than
    steps without, so the gain is then below LEAST, too.
    """
    return max(acceptance.chain, acceptance.tree) < LEAST or (gain is not None and not gain.useful)


def train_more(what: str) -> str:
    """Say what to do where drafts promise too little. `what` names what was trained."""
    return f"{what} promises less than {LEAST} x; train longer (--minutes), or on more text (--prompts, --data)"


def expected(acceptance: Acceptance, drafted: int) -> float:
    """Return the tokens of a step with a chain of so many drafted tokens, the model's own included."""
    tokens = reach = 1.0
    for rate in acceptance.by_depth[:drafted]:
        reach *= rate
        tokens += reach
    return tokens


def _cost(costs: Mapping[int, float], slots: int) -> float:
    """Return the cost of the narrowest measured width that holds the slots."""
    return costs[min(width for width in costs if width >= slots)]
