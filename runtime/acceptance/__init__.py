"""Acceptance rules: each decides which slots of a draft to commit. One rule a file, one function a rule.

All randomness of a rule comes from `verified.rng` and `verified.choose`, so a test can enumerate every outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, cast, runtime_checkable

from ..draft import Accepted, Draft, Verified


class Keeps(StrEnum):
    """A promise of an acceptance rule: what its output shares with plain decoding of one request, for any drafts."""

    TOKENS = "tokens"  # Greedy and sampled answers have the tokens of plain decoding.
    DISTRIBUTION = "distribution"  # Samples have the distribution of plain decoding; greedy answers have its tokens.
    NOTHING = "nothing"  # Answers may differ from those of plain decoding.


@runtime_checkable
class Acceptance(Protocol):
    """A function that decides which slots of a draft to commit, marked by `rule`.

    Attributes:
        needs_draft_probs: whether the rule reads `draft.probs`, the distributions that the draft was sampled from.
            Such a rule needs a drafter that can sample.
        keeps: what it keeps of plain decoding.
    """

    __name__: str
    needs_draft_probs: bool
    keeps: Keeps

    def __call__(self, draft: Draft, verified: Verified) -> Accepted:
        """Return a path of the draft's tree from slot 0, and the token that the target chose after it."""


def rule(
    *, needs_draft_probs: bool, keeps: Keeps = Keeps.NOTHING
) -> Callable[[Callable[[Draft, Verified], Accepted]], Acceptance]:
    """Return a decorator that marks a function as an acceptance rule.

    Args:
        needs_draft_probs: whether the function reads `draft.probs`.
        keeps: what it keeps of plain decoding. A rule that says nothing keeps nothing.
    """

    def mark(function: Callable[[Draft, Verified], Accepted]) -> Acceptance:
        acceptance = cast(Acceptance, function)
        acceptance.needs_draft_probs, acceptance.keeps = needs_draft_probs, keeps
        return acceptance

    return mark
