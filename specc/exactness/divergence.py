"""How far the answer of a lossy recipe is from that of plain decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextDivergence:
    """A comparison of an answer with that of plain decoding, place by place.

    Attributes:
        changed: the share of places whose tokens differ. A place that one of the two lacks counts too.
        first: the first such place, from 0; None if the answers are equal.
    """

    changed: float
    first: int | None


def compare_texts(tokens: Sequence[int], plain: Sequence[int]) -> TextDivergence:
    """Compare the tokens of an answer with those of plain decoding."""
    places = max(len(tokens), len(plain))
    different = [place for place, (a, b) in enumerate(zip(tokens, plain, strict=False)) if a != b]
    different += range(min(len(tokens), len(plain)), places)
    return TextDivergence(changed=len(different) / places if places else 0.0, first=different[0] if different else None)
