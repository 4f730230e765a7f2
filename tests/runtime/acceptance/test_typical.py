"""Typical acceptance on trees of a language of four tokens."""

from __future__ import annotations

import numpy as np
import pytest
from language import language, verify

from specc.runtime.acceptance import Keeps, with_parameters
from specc.runtime.acceptance.match import match
from specc.runtime.acceptance.typical import typical
from specc.runtime.draft import Draft
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

TREE = Tree((-1, 0, 0, 0, 0, 1, 1, 1, 1))
DRAFT = Draft((0, 0, 1, 2, 3, 0, 1, 2, 3), TREE)


def bound(probs: np.ndarray, epsilon: float, delta: float) -> float:
    entropy = -(probs[probs > 0] * np.log(probs[probs > 0])).sum()
    return min(epsilon, delta * float(np.exp(-entropy)))


@pytest.mark.parametrize(("epsilon", "delta"), [(0.09, 0.3), (0.3, 1.0), (1.0, 0.5)])
def test_it_accepts_what_is_likely_enough_for_the_entropy(epsilon: float, delta: float) -> None:
    accept = with_parameters(typical, {"epsilon": epsilon, "delta": delta})
    for seed in range(40):
        target = language(seed)
        accepted = accept(DRAFT, verify(DRAFT, target, Sampling(1.0, rng=SeededRng(seed))))
        first = [token for token in range(4) if target(())[token] > bound(target(()), epsilon, delta)]
        second = [token for token in range(4) if target((0,))[token] > bound(target((0,)), epsilon, delta)]
        if 0 in first and second:
            assert accepted.slots == (0, 1, 5 + second[0])
        else:
            assert accepted.slots == ((0, 1 + first[0]) if first else (0,))


def test_the_token_after_the_path_is_the_targets_own() -> None:
    """With bounds that nothing meets, it is plain sampling."""
    accept, target = with_parameters(typical, {"epsilon": 1, "delta": 1}), language(3)
    sharp = Draft((0,), Tree.chain(1))
    for seed in range(20):
        sampling = Sampling(1.0, rng=SeededRng(seed))
        assert accept(sharp, verify(sharp, target, sampling)) == match(sharp, verify(sharp, target, sampling))


def test_at_temperature_zero_it_is_greedy_matching() -> None:
    for seed in range(10):
        verified = verify(DRAFT, language(seed), Sampling())
        assert typical(DRAFT, verified) == match(DRAFT, verified)


def test_it_promises_nothing() -> None:
    assert typical.keeps == Keeps.NOTHING and not typical.needs_draft_probs
