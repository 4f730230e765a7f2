"""Random decisions: repeatable by seed and place, independent otherwise, and distributed as they should be."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pytest
from chance import chi_square_rejects
from hypothesis import given
from hypothesis import strategies as st
from thorough import sample

from specc.runtime import rng as module
from specc.runtime.errors import PromptError
from specc.runtime.rng import SeededRng, Use, uniforms

PROBS = np.array([0.0, 0.5, 0.0, 0.3, 0.15, 0.05, 0.0])
PLACES = st.tuples(st.integers(0, 2**70), st.integers(0, 2**20), st.sampled_from(Use), st.integers(0, 128))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two samples in units of its standard deviation for independent ones."""
    return float(np.corrcoef(a, b)[0, 1] * len(a) ** 0.5)


def test_numbers_are_those_of_splitmix64() -> None:
    """The first outputs for the seed 1234567, as published with the generator's other implementations."""
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [module._number(1234567, index) for index in range(5)] == expected
    assert (uniforms(1234567, np.arange(5)) * 2**52 - 0.5).astype(np.uint64).tolist() == [n >> 12 for n in expected]


def test_seeds_that_are_not_whole_numbers_are_named() -> None:
    for seed in (1.5, "a", True):
        with pytest.raises(PromptError, match=r"seed .* is not an integer; give 0 or more"):
            SeededRng(seed)  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="seed -1 is negative; give 0 or more"):
        SeededRng(-1)
    assert SeededRng(np.int64(3)).pick(np.ones(1000)) == SeededRng(3).pick(np.ones(1000))  # type: ignore[arg-type]


def test_seeds_of_any_size_differ() -> None:
    seeds = [0, 1, 2**64 - 1, 2**64, 2**64 + 1, 2**128, 3 * 2**128]
    assert len({SeededRng(seed).pick(np.ones(2**40 // 2**20)) for seed in seeds}) == len(seeds)
    assert len({SeededRng(None).pick(np.ones(2**20)) for _ in range(5)}) > 1


PICKS = {  # seed -> of each use, the picks of the slots 0 and 2 at position 3, among 2**16 equal probabilities
    0: {Use.TOKEN: [63426, 35716], Use.DRAFT: [62360, 6846], Use.ACCEPT: [31157, 25588]},
    7: {Use.TOKEN: [36557, 33216], Use.DRAFT: [46940, 11634], Use.ACCEPT: [29082, 24795]},
    2**64 + 5: {Use.TOKEN: [58087, 60628], Use.DRAFT: [31096, 29597], Use.ACCEPT: [46895, 7513]},
}


@pytest.mark.parametrize("seed", PICKS)
def test_a_seed_decides_as_it_did_before(seed: int) -> None:
    """A text that a user has repeated with its seed must not change with an upgrade."""
    equal = np.ones(2**16)
    assert {u: [SeededRng(seed).at(3, u, slot).pick(equal) for slot in (0, 2)] for u in Use} == PICKS[seed]


@pytest.mark.parametrize("slot", sample([0, 3], 1))
@pytest.mark.parametrize("use", sample(Use, 1))
def test_it_picks_as_often_as_the_probabilities_say_and_never_the_impossible(use: Use, slot: int) -> None:
    """Over positions of one seed, and over seeds at one position. The sum need not be 1."""
    of_positions = Counter(SeededRng(1).at(position, use, slot).pick(PROBS * 7) for position in range(5000))
    of_seeds = Counter(SeededRng(seed).at(5, use, slot).pick(PROBS) for seed in range(5000))
    draws = SeededRng(3).at(5, use, slot)
    of_draws = Counter(draws.pick(PROBS) for _ in range(5000))
    for counts in (of_positions, of_seeds, of_draws):
        assert not chi_square_rejects(counts, dict(enumerate(PROBS)))


def test_a_place_is_found_as_often_as_its_weight_says_and_never_an_empty_one() -> None:
    """Over positions of one seed, and over the draws of one place. The sum need not be 1."""
    ends, draws = (PROBS * 7).cumsum(), SeededRng(3)
    of_positions = Counter(SeededRng(1).at(position, Use.DRAFT).place(ends) for position in range(5000))
    of_draws = Counter(draws.place(ends) for _ in range(5000))
    for counts in (of_positions, of_draws):
        assert not chi_square_rejects(counts, dict(enumerate(PROBS)))


@pytest.mark.parametrize("ends", [[0.0, 1.0, 1.0], [0.0, 5e-324, 5e-324], [np.nan] * 3])
def test_a_place_is_an_index_also_where_the_product_is_rounded_up(ends: list[float]) -> None:
    assert SeededRng(0).place(np.array(ends)) == (0 if np.isnan(ends[0]) else 1)


def test_it_is_true_as_often_as_the_probability_says() -> None:
    rows = [SeededRng(0).at(position, Use.ACCEPT) for position in range(5000)]
    for counts in (Counter(rng.bernoulli(0.2) for rng in rows), Counter(rng.bernoulli(0.2) for rng in rows)):
        assert not chi_square_rejects(counts, {True: 0.2, False: 0.8})


@pytest.mark.thorough
def test_decisions_at_different_places_are_independent() -> None:
    """Pairs: neighbour positions, neighbour seeds, uses, slots and draws; chi-square over all pairs of picks."""
    p = {(a, b): PROBS[a] * PROBS[b] for a in range(7) for b in range(7)}

    def pick(seed: int, position: int, use: Use = Use.TOKEN, slot: int = 0) -> int:
        return SeededRng(seed).at(position, use, slot).pick(PROBS)

    def twice(position: int) -> tuple[int, int]:
        rng = SeededRng(2).at(position, Use.ACCEPT)
        return rng.pick(PROBS), rng.pick(PROBS)

    every = range(5000)
    pairs = {
        "positions": Counter((pick(1, i), pick(1, i + 1)) for i in every),
        "positions far apart": Counter((pick(1, i), pick(1, i + 4096)) for i in every),
        "seeds": Counter((pick(i, 7), pick(i + 1, 7)) for i in every),
        "seed and position": Counter((pick(i, i + 1), pick(i + 1, i)) for i in every),
        "uses": Counter((pick(1, i, Use.TOKEN), pick(1, i, Use.DRAFT)) for i in every),
        "slots": Counter((pick(1, i, Use.DRAFT, 1), pick(1, i, Use.DRAFT, 2)) for i in every),
        "draws": Counter(twice(i) for i in every),
    }
    assert [name for name, counts in pairs.items() if chi_square_rejects(counts, p)] == []


def test_noise_is_uniform_and_uncorrelated() -> None:
    """Between neighbour positions, neighbour tokens, seeds and lags. A standard deviation of 5 has odds of 1e-6."""
    size = 200_000
    noise = [uniforms(module._number(module._number(0, seed), at), np.arange(size)) for seed in (0, 1) for at in (0, 1)]
    bins = np.bincount((noise[0] * 100).astype(int), minlength=100)
    assert not chi_square_rejects(dict(enumerate(bins.tolist())), dict.fromkeys(range(100), 0.01))
    for other in noise[1:]:
        assert abs(correlation(noise[0], other)) < 5
    for lag in (1, 2, 3, 64, 8192):
        assert abs(correlation(noise[0][:-lag], noise[0][lag:])) < 5
    assert correlation(noise[0], noise[0] + noise[1]) > 5


@given(PLACES)
def test_a_place_fixes_its_decisions(place: tuple[int, int, Use, int]) -> None:
    """Whatever was drawn before, there or elsewhere."""
    seed, request, use, position = place
    fresh, used = SeededRng(seed), SeededRng(seed)
    used.pick(np.ones(3))
    used.at(request, use, position).bernoulli(0.5)
    one, other = fresh.at(request, use, position), used.at(request, use, position)
    assert [one.pick(np.ones(100)) for _ in range(3)] == [other.pick(np.ones(100)) for _ in range(3)]


def test_the_noise_of_a_token_does_not_depend_on_which_others_are_possible() -> None:
    """So a cut of the distribution changes a choice only if that token is cut."""
    probs = np.random.default_rng(0).dirichlet(np.ones(20_000))
    for seed in range(50):
        token = SeededRng(seed).pick(probs)
        cut = np.where(np.arange(len(probs)) % 7 == token % 7, probs, 0)
        assert SeededRng(seed).pick(cut) == token
        assert SeededRng(seed).pick(np.where(cut > 0, 0, probs)) != token


def test_a_choice_is_that_of_gumbel_noise() -> None:
    """The definition: the largest log p - log(-log(1 - v)), without a short cut."""
    for seed in range(100):
        probs = np.random.default_rng(seed).dirichlet(np.full(3000, 0.1))
        rng = SeededRng(seed).at(3, Use.TOKEN)
        v = uniforms(module._number(rng._key, 0), np.arange(len(probs)))
        with np.errstate(divide="ignore"):
            scores = np.log(probs) - np.log(-np.log1p(-v))
        assert rng.pick(probs) == scores.argmax()


@pytest.mark.thorough
def test_last_bits_hardly_ever_change_a_choice() -> None:
    """Logits that differ by 1e-5: among 3000 choices of 50 thousand tokens, a flip has odds of about 1e-5 each.

    The control is an inverse sum over the vocabulary, with one random number for each choice.
    """
    noise = np.random.default_rng(0)
    flips, inverse_flips = 0, 0
    for seed in range(300):
        logits = noise.normal(size=50_000)
        one, other = (np.exp(logits + noise.normal(size=50_000) * 1e-5) for _ in range(2))
        flips += SeededRng(seed).pick(one) != SeededRng(seed).pick(other)
        at = noise.random()
        first, second = (int(np.searchsorted(np.cumsum(p), at * p.sum())) for p in (one, other))
        inverse_flips += first != second
    assert flips == 0 < inverse_flips


class Stuck(SeededRng):
    """An rng whose noise is at one end of its range."""

    noise = 2.0**-53

    def _uniforms(self, indices: np.ndarray) -> np.ndarray:
        return np.full(len(indices), self.noise)


@pytest.mark.parametrize("noise", [2.0**-53, 1 - 2.0**-53])
@given(st.lists(st.sampled_from([0.0, 5e-324, 1e-300, 1e-17, 0.1, 0.7]), min_size=1, max_size=9).filter(any))
def test_even_at_the_ends_of_its_range_what_is_possible_is_picked(noise: float, probs: list[float]) -> None:
    rng: Any = Stuck(0)
    rng.noise = noise
    with np.errstate(all="raise", under="ignore", over="ignore"):
        assert probs[rng.pick(np.array(probs))] == max(probs)
    assert not rng.bernoulli(0.0) and rng.bernoulli(1.0)


def test_probabilities_that_are_not_numbers_are_no_traceback() -> None:
    """Engines can overflow. Some token comes, and the text shows it."""
    assert SeededRng(0).pick(np.array([np.nan, np.nan])) in (0, 1)


def test_exponential_numbers_have_the_exponential_distribution() -> None:
    """By the share below some numbers, within five standard deviations. Draws of one object differ."""
    rng = SeededRng(3).at(0, Use.DRAFT)
    numbers = np.array([rng.exponential() for _ in range(20_000)])
    assert numbers.min() > 0 and len(set(numbers.tolist())) == len(numbers)
    for bound in (0.01, 0.1, 1, 3, 6):
        share = 1 - np.exp(-bound)
        assert abs((numbers < bound).mean() - share) < 5 * (share * (1 - share) / len(numbers)) ** 0.5


def test_a_decision_by_an_estimate_is_that_by_the_exact_probability() -> None:
    """And the exact one is asked for in few cases. The control is the estimate alone, which decides otherwise."""
    calls: list[float] = []
    others = 0

    def exact(probability: float) -> float:
        calls.append(probability)
        return probability

    for seed in range(2000):
        probability = seed / 1999
        estimate = probability * (1.009 if seed % 2 else 0.991)
        decision = SeededRng(seed).bernoulli_near(estimate, 0.01, partial(exact, probability))
        assert decision == SeededRng(seed).bernoulli(probability)
        others += decision != SeededRng(seed).bernoulli(estimate)
    assert 0 < len(calls) < 40 and others > 0
