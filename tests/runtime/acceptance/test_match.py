"""Match, exactly, on every fixed tree of a language of four tokens."""

from __future__ import annotations

import numpy as np
import pytest
from language import VOCABULARY, accepted_share, deviation, fixed, language, sampled_tree

from specc.runtime.acceptance.match import match
from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree


@pytest.mark.parametrize("sparse", [False, True])
def test_it_is_exact_for_any_fixed_tree(sparse: bool) -> None:
    """Siblings hold one token as often as not."""
    rng = np.random.default_rng(0)
    for seed in range(100):
        tree = Tree((-1, *(int(rng.integers(i)) for i in range(1, rng.integers(2, 10)))))
        draft = Draft(tuple(map(int, rng.integers(VOCABULARY, size=tree.slots))), tree)
        assert deviation(match, fixed(draft), language(seed, sparse)) < 1e-12


def test_with_all_four_tokens_drafted_the_first_level_is_always_accepted() -> None:
    tree = Tree.from_paths([(0,), (1,), (2,), (3,)])
    assert accepted_share(match, sampled_tree(tree, language(1)), language(0)) == pytest.approx(1)


def test_it_follows_every_sibling_that_holds_the_token() -> None:
    """Only the second of two equal siblings has the right child."""
    draft = Draft((0, 1, 1, 2, 3), Tree((-1, 0, 0, 1, 2)))
    verified = Verified(Outputs(np.array([1, 3, 3, 0, 2]).data), Sampling())
    assert match(draft, verified) == Accepted((0, 2, 4), 2)


def test_of_equal_paths_the_first_is_committed() -> None:
    """The target's outputs are the same for all of them, but for the last bits."""
    verified = Verified(Outputs(np.array([1, 5, 6]).data), Sampling())
    assert match(Draft((0, 1, 1), Tree((-1, 0, 0))), verified) == Accepted((0, 1), 5)


def test_tokens_are_equal_by_value() -> None:
    """Python has one object for each small number only."""
    verified = Verified(Outputs(np.array([50_000, 7]).data), Sampling())
    assert match(Draft.chain([0, int("50000")]), verified) == Accepted((0, 1), 7)


def test_it_needs_no_draft_probs() -> None:
    assert not match.needs_draft_probs
