"""A bound on how much a tokenizer's normaliser lengthens a text. A few rules that double it could fill the memory."""

from __future__ import annotations

import json
from math import prod
from typing import Any

LONGEST = 256  # Characters that all rules together may make of one, and that a rule may put in front of a text.


def check(normalizer: Any) -> None:
    """Check the normaliser of a tokenizer.

    Args:
        normalizer: an object of the library tokenizers, or None.

    Raises:
        ValueError: it could make more than LONGEST characters of one.
    """
    if normalizer is None:
        return
    steps = list(_steps(json.loads(normalizer.__getstate__())))
    growth = prod(max(1, len(step.get("content") or "")) for step in steps)
    longest = max((len(step.get("prepend") or "") for step in steps), default=0)
    if max(growth, longest) > LONGEST:
        raise ValueError(f"its normaliser makes {max(growth, longest)} characters of one, and {LONGEST} are the most")


def _steps(state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rules of a normaliser, those of its sequences one by one."""
    inner = state.get("normalizers")
    return [state] if inner is None else [step for part in inner for step in _steps(part)]
