"""Prices of the runs of an engine with lanes, and how many tokens are worth drafting at these prices.

A guess pays while it is likely enough. A run reads all weights once, whatever it holds, so a further slot is cheap
while few requests run, and a large part of the cost while many do. So the length of drafts depends on the load.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from math import log
from typing import Protocol

from . import lengths
from .drafters import MOST_TOKENS
from .errors import RecipeError
from .json_codec import from_json
from .manifest import PLAN, Manifest
from .stats import Stats

MEMORY = 0.9  # The weight of earlier steps of a request after a step with a draft.
COMMON_MEMORY = 0.95  # The weight of earlier steps of all requests of a recipe.
PATIENCE = 0.98  # The weight after a step without a draft. So a request that does not pay tries again after some steps.
LONGEST_REST = 16  # times as long: how much a request waits before a further try, if each try failed


@dataclass(frozen=True, kw_only=True)
class Prices:
    """The seconds of a run: `run + lane * lanes + slot * slots`, where slots are those of all lanes.

    Attributes:
        run: of a run that holds nothing.
        lane: of a further sequence.
        slot: of a further token, in any lane.
    """

    run: float = 0.0
    lane: float = 0.0
    slot: float = 0.0

    def __post_init__(self) -> None:
        """Check the numbers, which a manifest may give.

        Raises:
            RecipeError: one is negative.
        """
        for name, seconds in (("run", self.run), ("lane", self.lane), ("slot", self.slot)):
            if seconds < 0:
                raise RecipeError(f"{name} is {seconds} seconds; tune the bundle again")

    def slots(self, lanes: int, share: float) -> int:
        """Return how many slots make a run of so many lanes, each with a slot, longer by a share of its time."""
        seconds = self.run + lanes * (self.lane + self.slot)
        return int(share * seconds / self.slot) if self.slot > 0 else MOST_TOKENS


def planned_prices(manifest: Manifest) -> Prices | None:
    """Return the prices that `specc tune` measured, as the plan of a bundle has them; None if there are none.

    Raises:
        BundleError: the plan has prices of another form.
    """
    plan = manifest.extra.get(PLAN)
    prices = plan.get("prices") if isinstance(plan, Mapping) else None
    return None if prices is None else from_json(Prices, prices, f"manifest.extra.{PLAN}.prices")


@dataclass(kw_only=True)
class Experience:
    """How drafts went so far. Recent ones count more.

    It begins with an assumed rate of 8 accepted tokens to 1 rejection.

    Attributes:
        accepted: drafted tokens that were accepted.
        rejected: steps in which a drafted token was not accepted.
        drafts: steps with a draft.
        slots: drafted tokens.
        draft_seconds: seconds of the drafter's engines for a drafted token.
    """

    accepted: float = 8.0
    rejected: float = 1.0
    drafts: float = 2.0
    slots: float = 8.0
    draft_seconds: float = 0.0

    @property
    def rate(self) -> float:
        """The probability that a drafted token is right if those before it are."""
        return self.accepted / (self.accepted + self.rejected)

    def add(self, drafted: int, accepted: int, seconds: float, memory: float = COMMON_MEMORY) -> None:
        """Count a step with a draft.

        Args:
            drafted: its tokens, one at least.
            accepted: those that were accepted.
            seconds: of the drafter's engines.
            memory: the weight of earlier steps.
        """
        self.fade(memory, 0.0)
        self.accepted += accepted
        self.rejected += accepted < drafted
        self.drafts += 1
        self.slots += drafted
        weight = 1 - memory if self.draft_seconds else 1.0
        self.draft_seconds += weight * (seconds / drafted - self.draft_seconds)

    def fade(self, memory: float, prior: float) -> None:
        """Let what was before count less, and what a request is assumed to do at first count more.

        Args:
            memory: the weight of what was before.
            prior: the weight of the assumption.
        """
        self.accepted = memory * self.accepted + prior * Experience.accepted
        self.rejected = memory * self.rejected + prior * Experience.rejected
        self.drafts = memory * self.drafts + prior * Experience.drafts
        self.slots = memory * self.slots + prior * Experience.slots

    def begin(self) -> Progress:
        """Return the progress of a new request, which expects what this was, with the weight of the assumption."""
        weight = (Experience.accepted + Experience.rejected) / (self.accepted + self.rejected)
        length = self.slots / self.drafts
        return Progress(
            common=self,
            accepted=weight * self.accepted,
            rejected=weight * self.rejected,
            slots=length * Experience.drafts,
            draft_seconds=self.draft_seconds,
        )


@dataclass(kw_only=True)
class Progress(Experience):
    """How the drafts of one request went so far.

    While a request does not draft, its numbers move back to the assumption, so that it tries again: after 4 steps if
    its rate is near to one that pays, after 50 if all drafts failed. Each try that fails doubles that number, up to
    `LONGEST_REST` times.

    Attributes:
        common: how the drafts of all requests of its recipe go, to which those of this one are added.
        shares: whether the calls that verify its drafts share a run with those of others.
        last_length: tokens of the last draft; 0 if the last step had none.
        last_accepted: those that were accepted.
    """

    common: Experience = field(default_factory=Experience)
    shares: bool = True
    last_length: int = 0
    last_accepted: int = 0
    _rests: bool = False  # Whether the step before had no draft.
    _rest: int = 1  # How many times as long as at first it waits before it tries again.
    _runs: list[float] = field(default_factory=list)  # Seconds of the engines in the step under way.
    _counts: tuple[int, int] = (0, 0)  # Tokens that were drafted and accepted before it.

    def charge(self, seconds: float) -> None:
        """Count a run of an engine. The last one of a step is the target's."""
        self._runs.append(seconds)

    def observe(self, stats: Stats) -> None:
        """Look at the counts of the request after a step."""
        drafted, accepted = stats.drafted - self._counts[0], stats.accepted - self._counts[1]
        seconds, self._counts = sum(self._runs[:-1]), (stats.drafted, stats.accepted)
        self._runs.clear()
        self.last_length, self.last_accepted = drafted, accepted
        if drafted:
            self.add(drafted, accepted, seconds, MEMORY)
            self.common.add(drafted, accepted, seconds)
            if accepted:
                self._rest = 1
            elif self._rests:
                self._rest = min(2 * self._rest, LONGEST_REST)
        else:
            change = (1 - PATIENCE) / self._rest
            self.fade(1 - change, change)
        self._rests = not drafted


class WidthPolicy(Protocol):
    """A rule for how many tokens each request drafts in the next step."""

    def draft_tokens(self, requests: Items[Progress]) -> list[int]:
        """Return the largest number of tokens for each of the requests that take the step together."""


@dataclass(frozen=True)
class ByPrice:
    """Draft as long as the next token is worth its price.

    With n requests a plain token costs a share of the run: `(run + n * (lane + slot)) / n`. The i-th token of a draft
    is right with probability `rate ** i`. It pays if that share of a plain token's cost exceeds the cost of a slot and
    of drafting the token. A tree has no lanes: its draft pays if its tokens are cheaper than as many plain ones.

    Attributes:
        prices: of the engine with lanes that verifies.
    """

    prices: Prices

    def draft_tokens(self, requests: Items[Progress]) -> list[int]:
        """Return the largest number of tokens for each request."""
        prices = self.prices
        plain_token = prices.run / max(1, len(requests)) + prices.lane + prices.slot
        return [self._length(each, plain_token) if each.shares else self._alone(each, plain_token) for each in requests]

    def _length(self, request: Progress, plain_token: float) -> int:
        """Return the largest i with `rate ** i * plain_token >= price`."""
        price = self.prices.slot + request.draft_seconds
        if price <= 0 or request.rate >= 1:
            return MOST_TOKENS
        if price >= plain_token:
            return 0
        return min(MOST_TOKENS, int(log(price / plain_token) / log(request.rate)))

    def _alone(self, request: Progress, plain_token: float) -> int:
        """Return all or nothing for a draft that has a run of its own: a tree, whose shape is fixed."""
        slots, accepted = request.slots / request.drafts, request.accepted / request.drafts
        seconds = self.prices.run + slots * (self.prices.slot + request.draft_seconds)
        return MOST_TOKENS if (1 + accepted) * plain_token > seconds else 0


class Bass:
    """The rule of BASS (Qian et al. 2024, algorithm 1): one length for all requests, which follows the best of them.

    Attributes:
        schedule: says how many tokens the next drafts have.
    """

    def __init__(self) -> None:
        self.schedule = lengths.Bass(MOST_TOKENS)

    def draft_tokens(self, requests: Items[Progress]) -> list[int]:
        """Adapt the length to the last step of all requests, and return it for each."""
        best = max((each.last_accepted for each in requests if each.last_length), default=None)
        if best is not None:
            self.schedule.observe(self.schedule.count, best)
        return [self.schedule.count] * len(requests)
