"""Speculative sampling, exactly, on chains of a language of four tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from language import accepted_share, deviation, language, likeliest, sampled_chain, verify

from specc.runtime.acceptance.speculative import speculative
from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.errors import RecipeError
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("slots", [1, 2, 3])
def test_it_is_exact_for_a_sampled_chain(slots: int, sparse: bool) -> None:
    for seed in range(25):
        propose = sampled_chain(slots, language(100 + seed, sparse))
        assert deviation(speculative, propose, language(seed, sparse)) < 1e-12


def test_a_token_is_accepted_as_often_as_target_and_draft_overlap() -> None:
    """With probability sum(min(p, q)), and no rule accepts more (Leviathan et al. 2023)."""
    for seed in range(25):
        p, q = language(seed), language(100 + seed)
        overlap = np.minimum(p(()), q(())).sum()
        assert accepted_share(speculative, sampled_chain(2, q), p) == pytest.approx(overlap, abs=1e-12)


def test_at_temperature_zero_it_is_greedy_matching() -> None:
    """It asks for neither probabilities nor random numbers."""
    no_rng: Any = None
    verified = Verified(Outputs(np.array([2, 1, 0]).data), Sampling(rng=no_rng))
    assert speculative(Draft((0, 2, 3), Tree.chain(3)), verified) == Accepted((0, 1), 1)


def test_it_refuses_a_tree() -> None:
    draft = Draft((0, 1, 2), Tree((-1, 0, 0)), {0: language(1)(())})
    with pytest.raises(RecipeError, match="'speculative' is for chains, and this draft is a tree; use recursive"):
        speculative(draft, verify(draft, language(0), Sampling(1.0)))


def test_it_is_biased_for_the_likeliest_token_and_so_the_enumeration_can_fail() -> None:
    """A draft that was not sampled from the distribution that it states: the known trap."""
    assert max(deviation(speculative, likeliest(1, language(100 + s)), language(s)) for s in range(20)) > 0.2


def test_it_needs_draft_probs() -> None:
    assert speculative.needs_draft_probs
