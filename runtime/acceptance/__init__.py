"""Which slots of a draft to keep: one rule a file, each a plain function `rule(draft, verified) -> Accepted`.

A rule's randomness comes from `verified.sampling.rng` alone.
"""

from __future__ import annotations

from collections.abc import Callable

from ..draft import Accepted, Draft, Verified

Acceptance = Callable[[Draft, Verified], Accepted]


def needs_draft_probs(rule: Acceptance) -> Acceptance:
    """Mark a rule that reads the distributions that the draft was sampled from: it is for drafters that sample."""
    rule.needs_draft_probs = True  # type: ignore[attr-defined]
    return rule
