"""Recursive rejection sampling, exactly, on trees of a language of four tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from language import (
    accepted_share,
    deviation,
    independent_tree,
    language,
    likeliest,
    sampled_chain,
    sampled_tree,
    with_replacement,
)
from thorough import sample

from specc.recipes.blocks import branching_tree
from specc.runtime.acceptance.recursive import recursive
from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.rng import Use
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

LITERALS: list[list[tuple[int, ...]]] = [
    [(0,)],
    [(0,), (1,), (0, 0)],
    [(0,), (1,), (0, 0), (0, 1), (1, 0)],
    [(0,), (1,), (2,), (2, 0)],
    [(0,), (1,), (2,), (3,), (0, 0)],
]


@pytest.mark.parametrize("seed", sample(range(3), 1))
@pytest.mark.parametrize("sparse", sample([False, True], 1))
@pytest.mark.parametrize("literal", LITERALS, ids=str)
def test_it_is_exact_for_siblings_drawn_without_replacement(
    literal: list[tuple[int, ...]], sparse: bool, seed: int
) -> None:
    propose = sampled_tree(Tree.from_paths(literal), language(100 + seed, sparse))
    assert deviation(recursive, propose, language(seed, sparse)) < 1e-12


def test_a_token_is_accepted_as_often_as_target_and_draft_overlap() -> None:
    """With probability sum(min(p, q)), and no rule accepts more (Leviathan et al. 2023)."""
    for seed in range(25):
        p, q = language(seed), language(100 + seed)
        overlap = np.minimum(p(()), q(())).sum()
        assert accepted_share(recursive, sampled_chain(2, q), p) == pytest.approx(overlap, abs=1e-12)


def test_with_all_four_tokens_drafted_the_first_level_is_always_accepted() -> None:
    tree = Tree.from_paths([(0,), (1,), (2,), (3,)])
    assert accepted_share(recursive, sampled_tree(tree, language(1)), language(0)) == pytest.approx(1)


@pytest.mark.thorough
@pytest.mark.parametrize("count", [2, 3])
def test_rsd_siblings_without_replacement_are_accepted_at_least_as_often_as_independent_ones(count: int) -> None:
    """The claim of RSD, against recursive rejection of as many independent drafts, which is exact as well."""
    tree = branching_tree([count])
    for seed in range(25):
        p, q = language(seed), language(100 + seed)
        without = accepted_share(recursive, sampled_tree(tree, q), p)
        assert without >= accepted_share(with_replacement, independent_tree(tree, q), p) - 1e-12
    assert deviation(with_replacement, independent_tree(tree, q), p) < 1e-12


def test_at_temperature_zero_it_is_greedy_matching() -> None:
    """It asks for neither probabilities nor random numbers."""
    no_rng: Any = None
    verified = Verified(Outputs(np.array([2, 1, 0]).data), Sampling(rng=no_rng))
    assert recursive(Draft((0, 2, 3), Tree.chain(3)), verified) == Accepted((0, 1), 1)


class Reject:
    """An Rng that rejects every token, and then picks the likeliest."""

    def at(self, position: int, use: Use, slot: int = 0) -> Reject:
        return self

    def pick(self, probs_V: np.ndarray) -> int:
        return int(probs_V.argmax())

    def place(self, ends_N: np.ndarray) -> int:
        return 0

    def bernoulli(self, probability: float) -> bool:
        return False

    def bernoulli_near(self, estimate: float, error: float, exact: Callable[[], float]) -> bool:
        return False

    def exponential(self) -> float:
        return 1.0


def test_a_draft_that_ran_out_of_tokens_is_not_divided_by_nothing() -> None:
    """It gave token 1 all of its probability, so the second slot is padding. What is left of the target is sampled."""
    draft = Draft((0, 1, 0), Tree((-1, 0, 0)), {0: np.array([0.0, 1.0, 0.0, 0.0])})
    logits = np.log(np.array([[0.25, 0.125, 0.5, 0.125]] * 3))
    with np.errstate(all="raise"):
        accepted = recursive(draft, Verified(Outputs(logits.argmax(-1).data, logits), Sampling(1.0, rng=Reject())))
    assert accepted == Accepted((0,), 2)


@pytest.mark.parametrize("count", [1, 2])
def test_it_is_biased_for_likeliest_tokens_and_so_the_enumeration_can_fail(count: int) -> None:
    assert max(deviation(recursive, likeliest(count, language(100 + s)), language(s)) for s in range(20)) > 0.2


def test_it_needs_draft_probs() -> None:
    assert recursive.needs_draft_probs
