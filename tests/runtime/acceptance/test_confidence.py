"""Acceptance by a guess's own confidence, on chains of a language of four tokens."""

from __future__ import annotations

import numpy as np
import pytest
from language import language, verify

from specc.runtime.acceptance import Keeps, with_parameters
from specc.runtime.acceptance.confidence import confidence
from specc.runtime.acceptance.match import match
from specc.runtime.draft import Accepted, Draft
from specc.runtime.errors import RecipeError
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree


def logits(*probabilities: float) -> np.ndarray:
    return np.log(np.array(probabilities, np.float32))


SURE, UNSURE = logits(0.01, 0.97, 0.01, 0.01), logits(0.2, 0.4, 0.2, 0.2)


def wrong_guess(seed: int) -> int:
    """Return a token that the target of this seed does not choose first."""
    return (int(language(seed)(()).argmax()) + 1) % 4


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9])
def test_a_confident_guess_is_kept_against_the_target(threshold: float) -> None:
    accept, row = with_parameters(confidence, {"threshold": threshold}), np.roll(SURE, -1)
    for seed in range(20):
        x = wrong_guess(seed)
        draft = Draft.chain([0, x], logits={0: np.roll(row, x)})
        verified = verify(draft, language(seed), Sampling())
        assert accept(draft, verified) == Accepted((0, 1), verified.choose(1))


def test_a_guess_below_the_threshold_and_one_without_logits_must_match() -> None:
    accept = with_parameters(confidence, {"threshold": 0.5})
    for seed in range(20):
        x = wrong_guess(seed)
        for rows in ({}, {0: np.roll(np.roll(UNSURE, -1), x)}):
            draft = Draft.chain([0, x], logits=rows)
            verified = verify(draft, language(seed), Sampling())
            assert accept(draft, verified) == match(draft, verified) == Accepted((0,), verified.choose(0))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_with_a_threshold_of_one_it_is_match(temperature: float) -> None:
    certain = logits(1e-30, 1, 1e-30, 1e-30)
    for seed in range(40):
        draft = Draft.chain([0, 1, 1], logits={0: certain, 1: certain})
        verified = verify(draft, language(seed), Sampling(temperature, rng=SeededRng(seed)))
        assert confidence(draft, verified) == match(draft, verified)


def test_it_refuses_a_tree_and_promises_nothing() -> None:
    draft = Draft((0, 1, 2), Tree((-1, 0, 0)))
    with pytest.raises(RecipeError, match="'confidence' is for chains, and this draft is a tree; use match"):
        confidence(draft, verify(draft, language(0), Sampling()))
    assert confidence.keeps == Keeps.NOTHING and confidence.needs_draft_logits
