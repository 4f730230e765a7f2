"""The guard: speculate only while it pays.

A step with a draft should cost no more time than the plain steps that would have produced as many tokens. The guard
times both kinds of steps, and sums up what a recipe loses, in units of steps with a draft:

    loss = max(0, loss + 1 - tokens * seconds_of_a_plain_step / seconds_of_this_step)

This is a cumulative sum test (Page 1954). Gains cancel losses, so a good drafter survives bad luck, and a bad drafter
is noticed after a few steps. When the loss exceeds a budget, the guard first cuts chains short for a while. If that
does not help, or if no drafted token was accepted at all, it stops drafting for a while, each time for longer.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from statistics import median

from .draft import Accepted, Draft, Verified
from .drafters import Drafter, Drafting, Proposal
from .sequence import Sequence
from .stats import GuardCounts


@dataclass(frozen=True, kw_only=True)
class GuardPolicy:
    """The tuned numbers of a guard.

    Tuned on 2 virtual cores of a Xeon with AVX-512 and without AMX, with the demo model. benchmarks/LOG.md, "Helped",
    has the figures in the rows about a guard. To measure anew, run a recipe that pays and one that does not, with and
    without `--no-guard`, and compare each with plain decoding in the same run:

        specc bench build/demo.specc --recipe recycled-lookup,jacobi --rounds 4
    """

    loss_budget: float = 6.0  # steps with a draft: a larger loss cuts chains short, or stops drafts
    retry_budget: float = 1.5  # steps with a draft: what is left of loss_budget right after each change of level
    short_slots: int = 4  # slots of a chain that was cut short, the pending token included
    timed_steps: int = 8  # plain steps: the median of the last so many is the time of a plain step
    min_timed_steps: int = 2  # plain steps at the start of a session, before the first draft
    first_rest: int = 16  # steps: how long the first change to short or no drafts lasts
    longest_rest: int = 512  # steps: each rest takes twice as long as the last one, up to this
    retime_after: int = 64  # steps with a draft after which a plain step is timed again


class Level(Enum):
    """How much a guard lets its drafter draft."""

    FULL = auto()
    SHORT = auto()  # chains are cut to GuardPolicy.short_slots
    OFF = auto()


class Guard(Drafter):
    """A drafter that wraps another one, and limits it while its drafts do not pay.

    A model has one guard for each recipe. What a guard learns in one request holds in the next one.

    Attributes:
        drafter: the drafter that it wraps.
        level: how much that one may draft now.
    """

    def __init__(self, drafter: Drafter, policy: GuardPolicy | None = None) -> None:
        self.drafter = drafter
        self.policy = policy or GuardPolicy()
        self.level = Level.FULL
        self._plain_seconds: deque[float] = deque(maxlen=self.policy.timed_steps)
        self._plain_median = 0.0
        self._drafts_since_plain = 0
        # Since the last change of level: the loss, in steps with a draft, and the drafted tokens that were accepted.
        self._loss, self._accepted = 0.0, 0
        self._next_rest = self.policy.first_rest
        self._rest = 0  # Steps that are left at a level other than FULL.

    def open(self, seq: Sequence) -> GuardedDrafting:
        return GuardedDrafting(self, seq)

    @property
    def speculates(self) -> bool:
        """Tell whether the guard lets the drafter draft in the next step."""
        timed = len(self._plain_seconds) >= self.policy.min_timed_steps
        return self.level != Level.OFF and timed and self._drafts_since_plain < self.policy.retime_after

    def cut(self, draft: Draft) -> Draft:
        """Return a draft as the present level allows it: the first slots of a chain, with their tokens' probs."""
        slots = self.policy.short_slots
        if self.level != Level.SHORT or not draft.tree.is_chain or draft.tree.slots <= slots:
            return draft
        return draft.only(range(slots))

    def observe(self, draft: Draft, accepted: Accepted, seconds: float, counts: GuardCounts) -> None:
        """Judge a step.

        Args:
            draft: the draft of the step.
            accepted: what was accepted of it.
            seconds: the time of the step.
            counts: gets the changes of level, for the request that took the step.
        """
        if draft.tree.slots > 1:
            self._drafts_since_plain += 1
            self._judge(seconds, len(accepted.slots), counts)
        else:
            self._time_plain_step(seconds)
        if self.level != Level.FULL:
            self._rest -= 1
            if self._rest <= 0:
                self._switch(Level.FULL, counts)

    def _time_plain_step(self, seconds: float) -> None:
        """Take the time of a step without a draft, whether the guard or the drafter wanted none."""
        self._plain_seconds.append(seconds)
        self._plain_median = median(self._plain_seconds)
        self._drafts_since_plain = 0

    def _judge(self, seconds: float, tokens: int, counts: GuardCounts) -> None:
        """Add a step with a draft to the loss, and change the level if the budget is spent.

        Args:
            seconds: the time of the step.
            tokens: the new tokens of the step, the target's own one included.
            counts: gets the changes of level.
        """
        self._accepted += tokens - 1
        self._loss = max(0.0, self._loss + 1 - tokens * self._plain_median / seconds)
        if self._loss > self.policy.loss_budget:
            shorten = self.level == Level.FULL and self._accepted > 0
            self._switch(Level.SHORT if shorten else Level.OFF, counts)
        elif self.level == Level.FULL and not self._loss:
            self._next_rest = self.policy.first_rest

    def _switch(self, level: Level, counts: GuardCounts) -> None:
        self.level = level
        counts.switches += 1
        self._loss, self._accepted = self.policy.loss_budget - self.policy.retry_budget, 0
        if level != Level.FULL:
            self._rest = self._next_rest
            self._next_rest = min(2 * self._next_rest, self.policy.longest_rest)


class GuardedDrafting(Drafting[Guard]):
    """A drafting under a guard.

    Attributes:
        drafting: what it wraps.
        counts: what the guard did in this request.
    """

    def __init__(self, guard: Guard, seq: Sequence) -> None:
        super().__init__(guard, seq)
        self.drafting = guard.drafter.open(seq)
        self.counts = GuardCounts()
        self._start, self._speculates = 0.0, True

    def propose(self, room: int) -> Proposal:
        self._start = time.perf_counter()
        self._speculates = self.drafter.speculates
        if not self._speculates:
            return Draft.chain([self.seq.pending])
        draft = yield from self.drafting.propose(room)
        return self.drafter.cut(draft)

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        if self._speculates:
            self.drafting.observe(draft, verified, accepted)
        else:
            self.counts.plain_steps += 1
        self.drafter.observe(draft, accepted, time.perf_counter() - self._start, self.counts)
