"""k-SEQ, exactly, on independent chains of a language of four tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from language import accepted_share, deviation, independent_tree, language, likeliest, sampled_chain, sampled_tree

from specc.recipes.blocks import branching_tree
from specc.runtime.acceptance.kseq import find_rho, kseq
from specc.runtime.acceptance.speculative import speculative
from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree


@pytest.mark.thorough
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("branching", [[1], [1, 1], [2], [2, 1], [3]], ids=str)
def test_it_is_exact_for_siblings_drawn_independently(branching: list[int], sparse: bool) -> None:
    for seed in range(3):
        propose = independent_tree(branching_tree(branching), language(100 + seed, sparse))
        assert deviation(kseq, propose, language(seed, sparse)) < 1e-12


def test_with_one_chain_it_is_speculative_sampling() -> None:
    for seed in range(25):
        p, propose = language(seed), sampled_chain(2, language(100 + seed))
        assert accepted_share(kseq, propose, p) == pytest.approx(accepted_share(speculative, propose, p), abs=1e-12)


@pytest.mark.slow
@pytest.mark.thorough
def test_three_chains_of_spectr_have_more_accepted_than_one() -> None:
    for seed in range(25):
        p, q = language(seed), language(100 + seed)
        shares = [accepted_share(kseq, independent_tree(branching_tree([k]), q), p) for k in (1, 2, 3)]
        assert shares == sorted(shares) and shares[2] > shares[0] + 0.01


@pytest.mark.parametrize("count", [1, 2])
def test_it_is_biased_for_likeliest_tokens_and_so_the_enumeration_can_fail(count: int) -> None:
    assert max(deviation(kseq, likeliest(count, language(100 + s)), language(s)) for s in range(20)) > 0.2


def test_it_is_biased_for_siblings_drawn_without_replacement_so_that_it_asks_for_others() -> None:
    tree = branching_tree([3])
    worst = max(deviation(kseq, sampled_tree(tree, language(100 + s)), language(s)) for s in range(10))
    assert worst > 0.01 and kseq.needs_draft_probs and kseq.needs_replacement


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_rho_solves_its_equation_from_above(count: int) -> None:
    rng = np.random.default_rng(0)
    for size in (2, 4, 300):
        for sparse in (0, size // 2):
            p, q = rng.dirichlet(np.full(size, 0.3), size=2)
            q[:sparse] = 0
            q /= q.sum()
            rho = find_rho(p, q, count)
            share = np.minimum(q, p / rho).sum()
            assert 1 <= rho <= count
            assert 1 - (1 - share) ** count == pytest.approx(rho * share, abs=1e-8)
            assert (p - np.minimum(q, p / rho) * (1 - (1 - share) ** count) / share).min() > -1e-12


def test_distributions_without_a_common_token_leave_the_targets_own() -> None:
    p, q = np.array([0.5, 0.5, 0, 0]), np.array([0, 0, 0.5, 0.5])
    with np.errstate(all="raise"):
        assert 1 <= find_rho(p, q, 3) <= 3
    tree = branching_tree([3])
    assert deviation(kseq, independent_tree(tree, lambda path: q), lambda path: p) < 1e-12


def test_at_temperature_zero_it_is_greedy_matching() -> None:
    """It asks for neither probabilities nor random numbers."""
    no_rng: Any = None
    verified = Verified(Outputs(np.array([2, 1, 0]).data), Sampling(rng=no_rng))
    assert kseq(Draft((0, 2, 3), Tree.chain(3)), verified) == Accepted((0, 1), 1)
