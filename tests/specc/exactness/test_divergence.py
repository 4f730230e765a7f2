"""How far an answer is from that of plain decoding."""

from __future__ import annotations

import pytest

from specc.exactness.divergence import TextDivergence, compare_texts


@pytest.mark.parametrize(
    ("tokens", "plain", "changed", "first"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 0.0, None),
        ([1, 9, 3, 4], [1, 2, 3, 4], 0.25, 1),
        ([1, 2], [1, 2, 3, 4], 0.5, 2),
        ([1, 2, 3, 4], [1, 2], 0.5, 2),
        ([], [], 0.0, None),
        ([9], [1], 1.0, 0),
    ],
)
def test_places_that_differ_or_are_missing_count(
    tokens: list[int], plain: list[int], changed: float, first: int | None
) -> None:
    assert compare_texts(tokens, plain) == TextDivergence(changed=changed, first=first)
