"""Counts and times of one request, with vLLM's names: `mean_acceptance_length` is 1 + accepted / drafts."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from .draft import Accepted, Draft


@dataclass
class GuardCounts:
    """What a guard did in one request.

    Attributes:
        switches: how often it changed the level of drafting.
        plain_steps: how many steps it ran without asking the drafter.
    """

    switches: int = 0
    plain_steps: int = 0


@dataclass(kw_only=True)
class Stats:
    """Counts and times of one request. A draft is a step in which at least one token was proposed.

    Attributes:
        recipe: the recipe's name.
        lossless: whether the output has the distribution of plain decoding, by the rule in use, at this target.
        prompt_tokens: tokens of the prompt.
        new_tokens: tokens of the answer, an end-of-sequence token included.
        drafts: steps with a draft.
        drafted: tokens in all drafts, pending tokens not counted.
        accepted: drafted tokens that were committed.
        calls: runs of engines after prefill.
        target_calls: those of the target that verified.
        prefill_seconds: time up to the first token.
        seconds: time of decoding after the first token.
        engine_seconds: the part of `seconds` that was spent inside engines. Calls for other requests that ran with
            those of this one count too.
        verify_seconds: the part of `engine_seconds` in which the target verified.
        histogram: for each number of accepted tokens, how many drafts had it.
        guard: what the guard did; None if the request ran without a guard.
    """

    recipe: str
    lossless: bool = True
    prompt_tokens: int = 0
    new_tokens: int = 0
    drafts: int = 0
    drafted: int = 0
    accepted: int = 0
    calls: int = 0
    target_calls: int = 0
    prefill_seconds: float = 0.0
    seconds: float = 0.0
    engine_seconds: float = 0.0
    verify_seconds: float = 0.0
    histogram: Counter[int] = field(default_factory=Counter)
    guard: GuardCounts | None = None

    def charge(self, seconds: float) -> None:
        """Count one run of an engine, and the seconds that it took."""
        self.calls += 1
        self.engine_seconds += seconds

    def count(self, draft: Draft, accepted: Accepted) -> None:
        """Count the tokens of a step: those proposed, and those accepted."""
        drafted, hits = len(draft.tokens) - 1, len(accepted.slots) - 1
        if drafted:
            self.drafts += 1
            self.drafted += drafted
            self.accepted += hits
            self.histogram[hits] += 1

    @property
    def draft_calls(self) -> int:
        """Runs of the drafter's engines after prefill."""
        return self.calls - self.target_calls

    @property
    def mean_acceptance_length(self) -> float:
        """Tokens of a step with a draft, the target's own one included; 1.0 if there was no draft."""
        return 1 + self.accepted / self.drafts if self.drafts else 1.0

    @property
    def draft_acceptance_rate(self) -> float:
        """The share of drafted tokens that were accepted; 0.0 if there was no draft."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Speed of decoding after the first token, which prefill gives."""
        return (self.new_tokens - 1) / self.seconds if self.new_tokens > 1 and self.seconds else 0.0

    @property
    def overhead_fraction(self) -> float:
        """The share of decoding time that was spent outside the engines."""
        return max(0.0, 1 - self.engine_seconds / self.seconds) if self.seconds else 0.0

    @property
    def verify_fraction(self) -> float:
        """The share of decoding time in which the target verified."""
        return self.verify_seconds / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the counts and rates as plain data, with vLLM's names where vLLM has the same count."""
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
            "verify_fraction": self.verify_fraction,
            "guard": asdict(self.guard) if self.guard else None,
        }
