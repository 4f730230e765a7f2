"""Distance, with rollback, on drafts of a language of four tokens."""

from __future__ import annotations

import numpy as np
import pytest
from language import language, path_to, verify

from specc.runtime.acceptance import Keeps, with_parameters
from specc.runtime.acceptance.distance import distance
from specc.runtime.acceptance.match import match
from specc.runtime.draft import Draft
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

CHAINS = [Draft.chain([0, *tokens]) for tokens in np.random.default_rng(0).integers(4, size=(200, 3)).tolist()]


@pytest.mark.parametrize("threshold", [0.7, 1.0, 2.0, 5.0])
def test_it_rolls_back_to_the_first_token_that_is_too_far(threshold: float) -> None:
    accept, lengths = with_parameters(distance, {"rollback_threshold": threshold}), set()
    for seed, draft in enumerate(CHAINS):
        target = language(seed)
        far = [-np.log(target(path_to(draft, slot))[draft.tokens[slot + 1]]) > threshold for slot in range(3)]
        accepted = accept(draft, verify(draft, target, Sampling()))
        length = [*far, True].index(True)
        assert accepted.slots == tuple(range(1 + length))
        assert accepted.token == target(path_to(draft, length)).argmax()
        lengths.add(length)
    assert len(lengths) > 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_with_a_threshold_of_zero_every_token_is_the_targets_choice(temperature: float) -> None:
    """It is the first token that `match` would choose, too."""
    accept = with_parameters(distance, {"rollback_threshold": 0})
    for seed, draft in enumerate(CHAINS):
        verified = verify(draft, language(seed), Sampling(temperature, rng=SeededRng(seed)))
        accepted, by_match = accept(draft, verified), match(draft, verified)
        assert accepted.slots == (0,)
        assert accepted.token == (draft.tokens[1] if len(by_match.slots) > 1 else by_match.token)


def test_a_token_of_probability_zero_is_always_too_far() -> None:
    accept = with_parameters(distance, {"rollback_threshold": 100})
    for seed in range(30):
        target = language(seed, sparse=True)
        for token in range(4):
            draft = Draft.chain([0, token])
            accepted = accept(draft, verify(draft, target, Sampling()))
            assert len(accepted.slots) == (2 if target(())[token] > 0 else 1)


def test_it_follows_the_first_path_of_a_tree_that_is_near_enough() -> None:
    draft, target = Draft((0, 0, 1, 2, 3), Tree((-1, 0, 0, 0, 0))), language(3)
    accept = with_parameters(distance, {"rollback_threshold": 1.0})
    near = [slot for slot in range(1, 5) if -np.log(target(())[draft.tokens[slot]]) <= 1.0]
    assert accept(draft, verify(draft, target, Sampling())).slots == (0, near[0])


def test_it_promises_nothing() -> None:
    assert distance.keeps == Keeps.NOTHING and not distance.needs_draft_probs
