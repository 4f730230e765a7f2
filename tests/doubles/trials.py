"""A double of `specc.tuning.trials.run`: nothing is decoded, and each recipe takes the time that a test gives it."""

from __future__ import annotations

from collections.abc import Mapping

from specc.exactness.golden import Case, Replayed, Verdict
from specc.runtime.session import Session
from specc.tuning.trials import Trial

EXACT = 2.0  # times as long as otherwise: how long a run takes whose steps all have one width


class Runs:
    """A record of runs, with a clock that counts their seconds.

    Attributes:
        seconds: seconds a token, by recipe.
        verdicts: by recipe and case; all others are identical.
        calls: the recipe and the case of each run.
    """

    def __init__(self, seconds: Mapping[str, float], verdicts: Mapping[tuple[str, int], Verdict]) -> None:
        self.seconds, self.verdicts = seconds, verdicts
        self.calls: list[tuple[str, int]] = []
        self.clock = 0.0

    def __call__(
        self, session: Session, case: Case, number: int, recipe: str, tokens: int, tolerance: float, exact: bool
    ) -> Trial:
        self.calls.append((recipe, number))
        seconds = (tokens - 1) * self.seconds[recipe] * (EXACT if exact else 1)
        self.clock += seconds
        verdict = self.verdicts.get((recipe, number), Verdict.IDENTICAL)
        return Trial(replayed=Replayed(recipe, number, tokens, verdict), tokens=tokens - 1, seconds=seconds)
