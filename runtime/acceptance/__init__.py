"""Acceptance rules: each decides which slots of a draft to commit. One rule a file, one function a rule.

All randomness of a rule comes from `verified.rng` and `verified.choose`, so a test can enumerate every outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, cast, runtime_checkable

from ..draft import Accepted, Draft, Verified


@runtime_checkable
class Acceptance(Protocol):
    """A function that decides which slots of a draft to commit, marked by `rule`.

    Attributes:
        needs_draft_probs: whether the rule reads `draft.probs`, the distributions that the draft was sampled from.
            Such a rule needs a drafter that can sample.
    """

    __name__: str
    needs_draft_probs: bool

    def __call__(self, draft: Draft, verified: Verified) -> Accepted:
        """Return a path of the draft's tree from slot 0, and the token that the target chose after it."""


def rule(*, needs_draft_probs: bool) -> Callable[[Callable[[Draft, Verified], Accepted]], Acceptance]:
    """Return a decorator that marks a function as an acceptance rule.

    Args:
        needs_draft_probs: whether the function reads `draft.probs`.
    """

    def mark(function: Callable[[Draft, Verified], Accepted]) -> Acceptance:
        acceptance = cast(Acceptance, function)
        acceptance.needs_draft_probs = needs_draft_probs
        return acceptance

    return mark
