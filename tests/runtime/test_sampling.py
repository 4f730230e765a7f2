"""From logits to distributions, and from distributions to tokens."""

from __future__ import annotations

import warnings
from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.runtime.errors import PromptError
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import NEAR, SORTED, Sampling

logits = st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=12).map(lambda x: np.array(x, np.float32))
temperatures = st.floats(0.05, 5)


@given(logits, temperatures)
def test_probabilities_are_the_softmax_at_the_temperature(logits_V: np.ndarray, temperature: float) -> None:
    weights = np.exp((logits_V.astype(float) - float(logits_V.max())) / temperature)
    assert np.allclose(Sampling(temperature).probs(logits_V), weights / weights.sum(), atol=1e-12)


@given(logits, temperatures, st.integers(1, 14))
def test_top_k_keeps_the_k_likeliest_in_proportion(logits_V: np.ndarray, temperature: float, k: int) -> None:
    whole, cut = Sampling(temperature).probs(logits_V), Sampling(temperature, top_k=k).probs(logits_V)
    inside = cut > 0
    assert inside.sum() <= min(k, len(logits_V)) and cut.sum() == pytest.approx(1)
    assert whole[~inside].max(initial=0) <= whole[inside].min()
    assert np.allclose(cut[inside], whole[inside] / whole[inside].sum())


@given(logits, temperatures, st.floats(0.01, 0.99))
def test_top_p_keeps_the_smallest_set_of_that_mass(logits_V: np.ndarray, temperature: float, p: float) -> None:
    whole, cut = Sampling(temperature).probs(logits_V), Sampling(temperature, top_p=p).probs(logits_V)
    inside = whole[cut > 0]
    assert inside.sum() >= p - 1e-9 > inside.sum() - inside.min() - 2e-9
    assert whole[cut == 0].max(initial=0) <= inside.min()
    assert np.allclose(cut[cut > 0], inside / inside.sum())


@given(logits)
def test_top_k_is_cut_before_top_p(logits_V: np.ndarray) -> None:
    after = Sampling(1.0).probs(np.where(Sampling(1.0, top_k=2).probs(logits_V) > 0, logits_V, -np.inf))
    both = Sampling(1.0, top_k=2, top_p=0.6).probs(logits_V)
    assert np.count_nonzero(both) == (1 if after.max() >= 0.6 else min(2, len(logits_V)))


@given(logits, temperatures, st.floats(0.01, 1))
def test_min_p_keeps_the_tokens_with_that_share_of_the_likeliest(
    logits_V: np.ndarray, temperature: float, p: float
) -> None:
    whole, cut = Sampling(temperature).probs(logits_V), Sampling(temperature, min_p=p).probs(logits_V)
    inside = whole >= p * whole.max()
    assert np.array_equal(cut > 0, inside)
    assert np.allclose(cut[inside], whole[inside] / whole[inside].sum())


def test_min_p_is_cut_after_top_p() -> None:
    """Top-p keeps three tokens of four. With min_p first it would keep two."""
    logits_V = np.log(np.array([0.5, 0.2, 0.15, 0.15])).astype(np.float32)
    assert np.count_nonzero(Sampling(1.0, top_p=0.8, min_p=0.1).probs(logits_V)) == 3
    assert Sampling(1.0, top_p=0.8, min_p=0.35).probs(logits_V) == pytest.approx([5 / 7, 2 / 7, 0, 0])


@pytest.mark.torch
@pytest.mark.parametrize(("top_k", "top_p", "min_p"), [(0, 1.0, 0.1), (20, 0.9, 0.05), (5, 1.0, 0.3), (0, 0.8, 0.02)])
def test_the_cuts_are_those_of_transformers_in_its_order(top_k: int, top_p: float, min_p: float) -> None:
    import torch
    from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

    model: Any = GPT2LMHeadModel(GPT2Config(n_layer=1, n_head=1, n_embd=4, vocab_size=8))
    config = GenerationConfig(
        do_sample=True, temperature=0.7, top_k=top_k, top_p=top_p, min_p=min_p, num_beams=1, num_return_sequences=1
    )
    config._eos_token_tensor = None
    cuts = model._get_logits_processor(config, 1)
    for seed in range(20):
        logits_V = np.random.default_rng(seed).normal(scale=3, size=60).astype(np.float32)
        expected = torch.softmax(cuts(torch.tensor([[1]]), torch.tensor(logits_V[None]))[0], -1).numpy()
        assert Sampling(0.7, top_p, top_k, min_p).probs(logits_V) == pytest.approx(expected, abs=1e-6)


def test_of_tokens_that_are_as_likely_the_first_ones_reach_top_p() -> None:
    """Half of the probability is top_p 0.5 exactly: a token more would be too much."""
    assert Sampling(1.0, top_p=0.5).probs(np.zeros(2, np.float32)).tolist() == [1, 0]


def by_sorting(logits_V: np.ndarray, temperature: float, top_p: float, top_k: int) -> np.ndarray:
    """Compute the distribution in the simplest way: stable sorts of the whole vocabulary."""
    probs: np.ndarray = np.exp((logits_V.astype(np.float64) - logits_V.max()) / temperature)
    if 0 < top_k < len(probs):
        probs[np.argsort(-probs, kind="stable")[top_k:]] = 0
    probs /= probs.sum()
    if top_p < 1:
        order = np.argsort(-probs, kind="stable")
        before = np.cumsum(probs[order]) - probs[order]
        probs[order[before >= top_p]] = 0
        probs /= probs.sum()
    return probs


few_values = st.lists(st.sampled_from([-100.0, -1.0, 0.0, 0.5, 2.0]), min_size=1, max_size=40)


@given(
    st.one_of(logits, few_values.map(lambda x: np.array(x, np.float32))),
    temperatures,
    st.sampled_from([0.05, 0.3, 0.5, 0.9, 0.999999, 1 - 1e-12, 1 - 2**-53, 1.0]) | st.floats(0.01, 1),
    st.integers(0, 45),
)
def test_the_fast_cuts_are_those_of_a_stable_sort(logits_V: np.ndarray, temperature: float, p: float, k: int) -> None:
    """Bit for bit, ties included: of equal tokens the first ones stay."""
    got = Sampling(temperature, top_p=p, top_k=k).probs(logits_V)
    assert got.tolist() == by_sorting(logits_V, temperature, p, k).tolist()


@pytest.mark.parametrize("scale", [0.0, 0.01, 0.3, 1.0, 3.0, 12.0])
@pytest.mark.parametrize(("p", "k"), [(0.9, 0), (0.2, 0), (0.9, 50), (1.0, 50), (0.999999, 0)])
def test_the_fast_cuts_of_a_large_vocabulary_are_those_of_a_stable_sort(scale: float, p: float, k: int) -> None:
    """Flat distributions, peaked ones, and logits with 16 bits, of which many are equal."""
    logits_V = (np.random.default_rng(1).normal(size=20_000) * scale).astype(np.float16).astype(np.float32)
    assert np.array_equal(Sampling(0.8, top_p=p, top_k=k).probs(logits_V), by_sorting(logits_V, 0.8, p, k))


def reversed_partition(numbers: np.ndarray, kth: int) -> np.ndarray:
    """Partition as numpy promises and no better: one number is in its place, and the others are in falling order."""
    ascending, place = np.sort(numbers), kth % len(numbers)
    return np.concatenate([ascending[:place][::-1], ascending[place : place + 1], ascending[place + 1 :][::-1]])


@pytest.mark.parametrize("k", [1, 2, 15, 39])
def test_of_a_partition_only_the_number_in_its_place_is_used(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits_V = np.random.default_rng(0).normal(size=40).astype(np.float32)
    monkeypatch.setattr(np, "partition", reversed_partition)
    assert np.array_equal(Sampling(0.8, top_k=k).probs(logits_V), by_sorting(logits_V, 0.8, 1.0, k))


def test_cuts_of_a_large_vocabulary_sort_only_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    exponentials: list[int] = []
    sort, exp = np.sort, np.exp

    def recording(values: np.ndarray) -> np.ndarray:
        sizes.append(len(values))
        return sort(values)

    def recording_exp(values: np.ndarray, out: np.ndarray) -> np.ndarray:
        exponentials.append(len(values))
        result: np.ndarray = exp(values, out=out)
        return result

    monkeypatch.setattr(np, "sort", recording)
    monkeypatch.setattr(np, "exp", recording_exp)
    monkeypatch.setattr(np, "argsort", None)
    logits_V = (np.random.default_rng(1).normal(size=152_064) * 4).astype(np.float32)
    Sampling(0.8, top_p=0.95, top_k=64).probs(logits_V)
    for scale in (1.0, 0.3, 0.01):
        Sampling(0.8, top_p=0.95).probs(logits_V * np.float32(scale))
    assert sizes[0] == 64 and max(sizes[1:]) <= SORTED


@pytest.mark.parametrize("p", [0.25, 0.5, 0.75])
def test_where_rounding_could_decide_the_whole_vocabulary_is_sorted(p: float) -> None:
    """With equal tokens, a number of them reaches these masses exactly: a token more would be too much."""
    logits_V = np.zeros(1 << 15, np.float32)
    probs_V = Sampling(1.0, top_p=p).probs(logits_V)
    assert np.array_equal(probs_V, by_sorting(logits_V, 1.0, p, 0))
    assert np.flatnonzero(probs_V).tolist() == list(range(int(p * len(logits_V))))


@pytest.mark.parametrize("k", [1, 3, 19_999])
def test_of_tokens_that_are_as_likely_the_first_ones_are_the_k_likeliest(k: int) -> None:
    logits_V = np.zeros(20_000, np.float32)
    logits_V[[7, 19_000]] = 1.0, -1.0
    assert np.array_equal(Sampling(0.8, top_k=k).probs(logits_V), by_sorting(logits_V, 0.8, 1.0, k))


def test_top_k_is_exact_among_logits_that_hardly_differ() -> None:
    """They are all looked at, since their probabilities could be equal, and here they are not."""
    logits_V = np.array([-6e-7, 0.0, -3e-7, -1.0], np.float32)
    assert Sampling(1.0, top_k=1).probs(logits_V).tolist() == [0, 1, 0, 0]
    assert np.flatnonzero(Sampling(1.0, top_k=2).probs(logits_V)).tolist() == [1, 2]


@pytest.mark.parametrize(("p", "k"), [(1.0, 0), (0.5, 0), (1.0, 2), (0.5, 2)])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_logits_that_are_not_numbers_are_no_traceback(p: float, k: int) -> None:
    """Engines can overflow. Some token comes, and the text shows it."""
    for logits_V in ([np.nan] * 5, [1.0, np.nan, 2.0, 0.0, 1.0], [np.inf, 1.0, 2.0, 3.0, 4.0]):
        sampling = Sampling(1.0, top_p=p, top_k=k)
        assert 0 <= sampling.rng.pick(sampling.probs(np.array(logits_V, np.float32))) < 5


def test_top_p_one_cuts_nothing_however_small() -> None:
    """Rounded, the probability before the last token is 1."""
    assert Sampling(1.0).probs(np.array([0, -40], np.float32))[1] > 0


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("temperature", [1e-310, 1e-30, 1e-3])
def test_a_temperature_near_zero_is_the_argmax(temperature: float) -> None:
    assert Sampling(temperature).probs(np.array([1.0, 3.0, 2.0], np.float32)).tolist() == [0, 1, 0]


def test_a_token_ruled_out_by_its_logit_has_no_probability() -> None:
    assert Sampling(0.7).probs(np.array([-np.inf, 0.0, 0.0], np.float32)).tolist() == [0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
    ],
)
def test_a_value_out_of_range_is_named(name: str, value: float) -> None:
    values: dict[str, Any] = {"temperature": 1.0, name: value}
    with pytest.raises(PromptError, match=f"^{name} {value} "):
        Sampling(**values)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"temperature": "1"}, "temperature '1' is not a number"),
        ({"top_p": None}, "top_p None is not a number"),
        ({"top_k": 2.0}, "top_k 2.0 is not an integer"),
        ({"top_k": True}, "top_k True is not an integer"),
    ],
)
def test_a_value_of_another_type_is_named(values: dict[str, Any], line: str) -> None:
    with pytest.raises(PromptError, match=line):
        Sampling(**values)


def test_numbers_of_numpy_are_numbers() -> None:
    numbers: list[Any] = [np.float32(0.5), np.float64(0.5), np.int64(3)]
    assert Sampling(*numbers).top_k == 3


def test_a_request_cannot_change_how_it_samples() -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(Sampling(), "temperature", 1.0)  # noqa: B010


def test_only_temperature_zero_is_greedy() -> None:
    assert Sampling().greedy and not Sampling(0.01).greedy


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.5])
@pytest.mark.parametrize("cuts", [{}, {"top_k": 7}, {"top_p": 0.8}, {"top_k": 50, "top_p": 0.6}, {"min_p": 0.1}])
def test_a_drafter_draws_from_the_distribution_that_the_target_samples_from(
    temperature: float, cuts: dict[str, Any]
) -> None:
    """But for the last bits of float32."""
    sampling = Sampling(temperature, **cuts)
    for seed in range(5):
        logits_V = np.random.default_rng(seed).normal(scale=3, size=700).astype(np.float32)
        probs_V = sampling.draws(logits_V, SeededRng(0)).probs()
        assert np.allclose(probs_V, sampling.probs(logits_V), rtol=1e-5, atol=0)
        assert probs_V.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("cuts", [{}, {"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.1}])
def test_a_drafter_draws_some_token_from_logits_that_are_not_numbers(cuts: dict[str, Any]) -> None:
    for logits_V in ([np.nan] * 5, [1.0, np.nan, 2.0, 0.0, 1.0], [np.inf, 1.0, 2.0, 3.0, 4.0]):
        assert 0 <= Sampling(1.0, **cuts).draws(np.array(logits_V, np.float32), SeededRng(0)).pick() < 5


@pytest.mark.parametrize("temperature", [1e-310, 1e-30, 1e-3])
def test_a_drafter_draws_the_argmax_at_a_temperature_near_zero(temperature: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draws = Sampling(temperature).draws(np.array([1.0, 3.0, 2.0], np.float32), SeededRng(0))
    assert draws.probs().tolist() == [0, 1, 0]


def test_a_tiny_temperature_is_the_limit_of_greedy_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        probs_V = Sampling(1e-320).probs(np.array([1.0, 3.0, 2.0], np.float32))
    assert probs_V.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ["temperature", "top_p", "min_p"])
def test_a_number_too_large_for_a_float_is_out_of_range(name: str) -> None:
    options: dict[str, Any] = {"temperature": 1.0, name: 10**400}
    with pytest.raises(PromptError, match=f"{name} inf is not"):
        Sampling(**options)


def test_a_fraction_is_a_temperature() -> None:
    temperature: Any = Fraction(1, 2)
    logits = np.array([0.0, 1.0, 3.0], np.float32)
    assert np.array_equal(Sampling(temperature).probs(logits), Sampling(0.5).probs(logits))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.7])
def test_a_near_probability_is_near_or_there_is_none(temperature: float) -> None:
    noise, sampling, results = np.random.default_rng(0), Sampling(temperature), 0
    for size in (4, 300, 49152):
        for offset in (-200.0, -60.0, 0.0, 15.0, 200.0):
            logits_V = (noise.normal(scale=4, size=size) + offset).astype(np.float32)
            probs_V = sampling.probs(logits_V)
            for token in (int(logits_V.argmax()), int(logits_V.argmin()), 1):
                near = sampling.near_probability(logits_V, token)
                results += near is not None
                assert near is None or abs(near - probs_V[token]) < NEAR / 2 * near
    assert results >= 18
    assert Sampling(temperature, top_k=3).near_probability(logits_V, 1) is None
    assert Sampling(temperature).near_probability(np.full(9, np.nan, np.float32), 1) is None
    assert Sampling(temperature).near_probability(np.array([0, -np.inf], np.float32), 1) is None


@pytest.mark.parametrize("offset", [-300.0, 0.0, 300.0])
def test_draws_have_the_distribution_whatever_is_added_to_the_logits(offset: float) -> None:
    logits_V = np.random.default_rng(2).normal(scale=3, size=1000).astype(np.float32)
    for sampling in (Sampling(1.0), Sampling(0.7)):
        probs = sampling.draws(logits_V + np.float32(offset), SeededRng(0)).probs()
        assert np.abs(probs - sampling.probs(logits_V + np.float32(offset))).max() < 1e-6
