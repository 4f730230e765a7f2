"""What a request did, in vLLM's terms: `mean_acceptance_length` is 1 + accepted / drafts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .draft import Accepted, Draft
from .engine import Engine
from .guard import Guard

Spent = tuple[tuple[int, float], tuple[int, float], float]  # calls and seconds of targets and of drafts; a clock


def spent(targets: Iterable[Engine], drafts: Iterable[Engine]) -> Spent:
    """What engines show so far, and the clock."""
    return _sum(targets), _sum(drafts), time.perf_counter()


def _sum(engines: Iterable[Engine]) -> tuple[int, float]:
    calls, seconds = 0, 0.0
    for engine in engines:
        calls += engine.calls
        seconds += engine.seconds
    return calls, seconds


@dataclass
class Stats:
    """Counts of one request; a draft is a step that proposed at least one token."""

    recipe: str
    lossless: bool = True
    prompt_tokens: int = 0
    new_tokens: int = 0
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    target_calls: int = 0
    draft_calls: int = 0
    prefill_seconds: float = 0.0
    seconds: float = 0.0  # of decoding, prefill apart
    engine_seconds: float = 0.0
    histogram: Counter[int] = field(default_factory=Counter)
    guard: Guard | None = None  # what may stop the drafts, and did or did not

    def count(self, draft: Draft, accepted: Accepted) -> None:
        drafted, kept = len(draft.tokens) - 1, len(accepted.slots) - 1
        if drafted:
            self.drafts += 1
            self.drafted += drafted
            self.accepted += kept
            self.histogram[kept] += 1

    def step(self, before: Spent, after: Spent) -> None:
        """Add one step, from what targets, drafts and the clock showed before and after it."""
        (t0, ts0), (d0, ds0), s0 = before
        (t1, ts1), (d1, ds1), s1 = after
        self.target_calls += t1 - t0
        self.draft_calls += d1 - d0
        self.engine_seconds += ts1 - ts0 + ds1 - ds0
        self.seconds += s1 - s0

    @property
    def mean_acceptance_length(self) -> float:
        return 1 + self.accepted / self.drafts if self.drafts else 1.0

    @property
    def draft_acceptance_rate(self) -> float:
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Of decoding alone: the first token is prefill's."""
        return (self.new_tokens - 1) / self.seconds if self.new_tokens > 1 and self.seconds else 0.0

    @property
    def overhead_fraction(self) -> float:
        """The share of decoding spent outside the engines."""
        return max(0.0, 1 - self.engine_seconds / self.seconds) if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "lossless": self.lossless,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.new_tokens,
            "prefill_seconds": self.prefill_seconds,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "mean_acceptance_length": self.mean_acceptance_length,
            "draft_acceptance_rate": self.draft_acceptance_rate,
            "acceptance_histogram": [self.histogram[i] for i in range(max(self.histogram, default=-1) + 1)],
            "num_drafts": self.drafts,
            "num_draft_tokens": self.drafted,
            "num_accepted_tokens": self.accepted,
            "target_calls": self.target_calls,
            "draft_calls": self.draft_calls,
            "overhead_fraction": self.overhead_fraction,
            "guard": {"switches": self.guard.switches, "plain_steps": self.guard.plain_steps} if self.guard else None,
        }
