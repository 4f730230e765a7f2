"""Draws of drafters: their distribution, and the memory that they use again."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from chance import Script, chi_square_rejects, distribution

from specc.runtime.draws import BLOCK, DrawnProbs, Draws, Pool
from specc.runtime.rng import Rng, SeededRng, Use

WEIGHTS = (5.0, 3.0, 0.0, 2.0)


def draws(rng: Rng, weights: tuple[float, ...] = WEIGHTS) -> Draws:
    return Draws(rng, np.array(weights, np.float32), len(weights))


def two_blocks() -> np.ndarray:
    """Return weights of which two blocks have some, and a third has none."""
    weights = np.zeros(2 * BLOCK + 9)
    weights[[3, 7, 2 * BLOCK + 1, 2 * BLOCK + 8]] = 5, 1, 3, 1
    return weights


def order(rng: Rng, weights: np.ndarray, count: int) -> tuple[int, ...]:
    """Return the first tokens that are taken."""
    own = Draws(rng, weights.copy(), len(weights))
    return tuple(own.take()[0] for _ in range(count))


@pytest.mark.parametrize("weights", [np.array(WEIGHTS), two_blocks()])
def test_tokens_are_taken_one_after_another_without_replacement(weights: np.ndarray) -> None:
    """Plackett and Luce's probabilities of an order: each draw in proportion to what is left."""
    probs = weights / weights.sum()
    pairs = permutations(np.flatnonzero(probs).tolist(), 2)
    expected = {(a, b): probs[a] * probs[b] / (1 - probs[a]) for a, b in pairs}
    assert distribution(lambda rng: order(rng, weights, 2)) == pytest.approx(expected, abs=1e-12)


def test_what_is_drawn_has_the_stated_probabilities_exactly_though_sums_are_rounded() -> None:
    """The sums of blocks are those of float32. The control is their distance from the exact ones."""
    weights = np.random.default_rng(0).exponential(size=2 * BLOCK + 5).astype(np.float32)
    weights[np.random.default_rng(1).permutation(len(weights))[:-30]] *= 1e-3
    stated = Draws(SeededRng(0), weights.copy(), len(weights)).probs()
    assert np.abs(stated - weights / weights.sum(dtype=np.float64)).max() > 1e-12 and stated.sum() == pytest.approx(1)
    expected = {(token,): p for token, p in enumerate(stated) if p > 0}
    assert distribution(lambda rng: order(rng, weights, 1)) == pytest.approx(expected, abs=1e-14)
    one = Draws(SeededRng(3), weights.copy(), len(weights))
    first, share = one.take()
    second, rest = one.take()
    assert (share, one.probability(first)) == pytest.approx((stated[first], stated[first]), rel=1e-12)
    assert rest == pytest.approx(stated[second] / (1 - stated[first]), rel=1e-12)
    assert one.probs() == pytest.approx(stated, rel=1e-12)


def test_a_token_that_is_picked_can_be_picked_again() -> None:
    expected = {(a, b): WEIGHTS[a] * WEIGHTS[b] / 100 for a in (0, 1, 3) for b in (0, 1, 3)}

    def twice(rng: Script) -> tuple[int, int]:
        own = draws(rng)
        return own.pick(), own.pick()

    assert distribution(twice) == pytest.approx(expected, abs=1e-12)


def test_draws_of_a_seed_have_the_distribution_over_many_blocks() -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(3 * BLOCK + 1) * 0.02)
    counts = Counter(Draws(SeededRng(seed), probs.copy(), len(probs)).pick() for seed in range(3000))
    assert not chi_square_rejects(counts, dict(enumerate(probs)))


def test_a_draw_says_its_share_of_what_was_left() -> None:
    own, left = draws(SeededRng(3)), 10.0
    while not own.is_empty:
        assert own.left == pytest.approx(left / 10)
        token, share = own.take()
        assert share == pytest.approx(WEIGHTS[token] / left)
        assert own.probability(token) == pytest.approx(WEIGHTS[token] / 10)
        left -= WEIGHTS[token]
    assert left == own.left == 0


def test_taken_tokens_stay_in_the_distribution() -> None:
    own = draws(SeededRng(0))
    own.take(), own.take()
    assert own.probs().tolist() == [0.5, 0.3, 0.0, 0.2]


def test_candidates_are_tokens_by_their_ids() -> None:
    own = Draws(SeededRng(0), np.array([1.0, 3.0]), 9, np.array([2, 7]))
    assert own.probs().tolist() == [0, 0, 0.25, 0, 0, 0, 0, 0.75, 0]
    assert {own.take()[0], own.take()[0]} == {2, 7} and own.is_empty
    assert (own.probability(2), own.probability(7)) == (0.25, 0.75)


def test_a_certain_token_is_always_drawn() -> None:
    own = Draws.certain(SeededRng(0), 3, 5)
    assert own.pick() == 3 and own.probs().tolist() == [0, 0, 0, 1, 0]


def test_probabilities_by_slot_are_a_mapping() -> None:
    probs = DrawnProbs({0: draws(SeededRng(0)), 2: Draws.certain(SeededRng(0), 1, 4)})
    assert list(probs) == [0, 2] and len(probs) == 2 and 2 in probs and 1 not in probs
    assert probs[0].tolist() == [0.5, 0.3, 0.0, 0.2] and probs[2].tolist() == [0, 1, 0, 0]
    assert [probs.probability(0, token) for token in (0, 1, 3)] == [0.5, 0.3, 0.2] and probs.probability(2, 1) == 1


def test_memory_is_used_again_when_the_draws_are_gone() -> None:
    pool = Pool(100)
    array = pool.take(20)
    pool.give(array)
    assert pool.take(20) is array and pool.take(20) is not array
    pool.give(array)
    assert len(pool.take(7)) == 7


def test_a_pool_keeps_no_more_than_it_may() -> None:
    pool = Pool(100)
    arrays = [pool.take(20) for _ in range(2)]
    for array in arrays:
        pool.give(array)
    assert pool.take(20) is arrays[0] and pool.take(20) is not arrays[1]


def test_draws_depend_on_their_place_alone() -> None:
    def tokens(seed: int, slot: int) -> tuple[int, ...]:
        return order(SeededRng(seed).at(5, Use.DRAFT, slot), np.ones(1000), 4)

    assert tokens(1, 2) == tokens(1, 2) and len({tokens(1, 2), tokens(1, 3), tokens(2, 2)}) == 3
