"""The start of EAGLE-3's layer, and the layers that it reads."""

from __future__ import annotations

import pytest
from small_head import head, recordings, teacher

from specc.training.acceptance import ranks
from specc.training.eagle3 import COURSE

pytestmark = pytest.mark.torch


def test_the_closed_form_already_drafts_well() -> None:
    """The toy's next state is a linear function of the token, so the start alone finds it at every depth."""
    module, texts = head("eagle3"), recordings(40)
    COURSE.start(module, teacher(), texts)
    for text in ranks(module, COURSE, recordings(4, seed=9), 3):
        assert (text[:, :-3] == 0).mean() > 0.95


def test_a_random_head_does_not() -> None:
    """The control of the test above."""
    right = [(text[0] == 0).mean() for text in ranks(head("eagle3"), COURSE, recordings(4, seed=9), 3)]
    assert max(right) < 0.6


@pytest.mark.parametrize(("layers", "taps"), [(30, (2, 14, -1)), (12, (2, 5, -1)), (2, (0, -1)), (1, (-1,))])
def test_taps_are_an_early_layer_a_middle_one_and_the_last(layers: int, taps: tuple[int, ...]) -> None:
    assert COURSE.taps(layers) == taps
