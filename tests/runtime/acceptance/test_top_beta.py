"""Top-beta on trees of a language of four tokens."""

from __future__ import annotations

import numpy as np
import pytest
from language import language, verify

from specc.runtime.acceptance import Keeps, with_parameters
from specc.runtime.acceptance.match import match
from specc.runtime.acceptance.top_beta import top_beta
from specc.runtime.draft import Draft
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.tree import Tree

CHAIN = Draft.chain([0, 2, 1])
TREE = Draft((0, 0, 1, 2, 3), Tree((-1, 0, 0, 0, 0)))


def takes(probs: np.ndarray, token: int, beta: float, gap: float) -> bool:
    """The rule of the paper, for one token: its rank, and its distance from the first in log-probability."""
    rank = sorted(probs, reverse=True).index(probs[token])
    return rank < beta and np.log(max(probs)) - np.log(probs[token]) <= gap


@pytest.mark.parametrize(("beta", "gap"), [(2, 100.0), (4, 0.5), (3, 1.0)])
def test_specdec_keeps_tokens_that_rank_high_and_are_near_the_first(beta: float, gap: float) -> None:
    accept, lengths = with_parameters(top_beta, {"beta": beta, "gap": gap}), set()
    for seed in range(40):
        target = language(seed)
        accepted = accept(CHAIN, verify(CHAIN, target, Sampling()))
        first, second = takes(target(()), 2, beta, gap), takes(target((2,)), 1, beta, gap)
        length = 1 + first + (first and second)
        assert accepted.slots == tuple(range(length))
        assert accepted.token == target(CHAIN.tokens[1:length]).argmax()
        lengths.add(length)
    assert lengths == {1, 2, 3}


def test_with_beta_1_it_is_match_also_where_the_request_samples() -> None:
    accept = with_parameters(top_beta, {"beta": 1})
    for seed in range(10):
        for sampling in (Sampling(), Sampling(1.0, rng=SeededRng(seed))):
            verified = verify(TREE, language(seed), sampling)
            assert accept(TREE, verified) == match(TREE, verified)


def test_a_gap_of_0_takes_the_likeliest_token_alone() -> None:
    for seed in range(10):
        accepted = with_parameters(top_beta, {"gap": 0})(TREE, verify(TREE, language(seed), Sampling()))
        assert accepted.slots == (0, 1 + int(language(seed)(()).argmax()))


def test_it_promises_nothing() -> None:
    assert top_beta.keeps == Keeps.NOTHING and not top_beta.needs_draft_probs
