"""The predicted gain."""

from __future__ import annotations

import pytest
from small_head import head

from specc.training.acceptance import Acceptance
from specc.training.gain import expected, predict

pytestmark = pytest.mark.torch
COSTS = {1: 1.0, 2: 1.1, 3: 1.2, 4: 1.3, 5: 1.4, 8: 1.6}


def acceptance(*rates: float) -> Acceptance:
    return Acceptance(tokens=9, by_depth=rates, by_rank=(), chain=0.0, tree=0.0, unknown=0.0)


def test_the_tokens_of_a_step_are_the_sum_of_the_paths_probabilities() -> None:
    assert expected(acceptance(0.5, 0.5, 0.5), 2) == 1.75
    assert expected(acceptance(0.5), 4) == 1.5


def test_the_best_length_is_found() -> None:
    module = head("eagle3")
    size = sum(parameter.numel() for parameter in module.parameters())
    good = predict(module, acceptance(0.9, 0.9, 0.9, 0.9), COSTS, 100 * size)
    assert good is not None and good.drafted == 4 and good.useful
    assert good.step == 0.01 and good.speedup == pytest.approx(4.0951 / 1.44, abs=1e-3)
    poor = predict(module, acceptance(0.1, 0.1), COSTS, 100 * size)
    assert poor is not None and poor.drafted == 1 and not poor.useful


def test_without_costs_the_gain_is_unknown() -> None:
    assert predict(head("eagle3"), acceptance(0.5), {}, 10**6) is None
    assert predict(head("eagle3"), acceptance(0.5), {1: 1.0}, 10**6) is None
