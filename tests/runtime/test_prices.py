"""How many tokens are worth drafting: by the price of a slot, by the load, and by what was accepted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.runtime.drafters import MOST_TOKENS
from specc.runtime.errors import BundleError
from specc.runtime.manifest import Manifest
from specc.runtime.model import Model
from specc.runtime.prices import Bass, ByPrice, Experience, Prices, Progress, planned_prices
from specc.runtime.stats import Stats

PRICES = Prices(run=0.030, lane=0.0005, slot=0.0026)  # Of SmolLM2-135M in fp32 on one thread.


def progress(accepted: float, rejected: float, draft_seconds: float = 0.0) -> Progress:
    return Progress(accepted=accepted, rejected=rejected, draft_seconds=draft_seconds)


def expected_tokens(rate: float, length: int) -> float:
    """Return the tokens of a step: the target's own, and those of the draft up to the first wrong one."""
    return 1 + sum(rate**i for i in range(1, length + 1))


def test_the_more_requests_run_the_shorter_are_the_drafts() -> None:
    """A guess pays above a probability of 0.08, 0.25 and 0.40 at 1, 4 and 8 requests (findings on this model)."""
    request, policy = progress(0.7, 0.3), ByPrice(PRICES)
    lengths = [policy.draft_tokens([request] * count)[0] for count in (1, 4, 8)]
    assert lengths == sorted(lengths, reverse=True) and lengths[0] > lengths[2] > 0
    thresholds = [PRICES.slot / (PRICES.run / count + PRICES.lane + PRICES.slot) for count in (1, 4, 8)]
    assert thresholds == pytest.approx([0.08, 0.25, 0.40], abs=0.03)
    assert policy.draft_tokens([progress(0.35, 0.65)] * 8) == [0] * 8


@given(st.floats(0.05, 0.98), st.integers(1, 16))
def test_a_draft_ends_where_the_next_token_costs_more_than_a_plain_one(rate: float, requests: int) -> None:
    """Each token of the draft lowers the cost of a token, and the next one would not."""
    length = ByPrice(PRICES).draft_tokens([progress(rate, 1 - rate)] * requests)[0]
    plain_token = PRICES.run / requests + PRICES.lane + PRICES.slot
    if 0 < length < MOST_TOKENS:
        assert rate**length * plain_token >= PRICES.slot * (1 - 1e-9)
    assert rate ** (length + 1) * plain_token < PRICES.slot * (1 + 1e-9) or length == MOST_TOKENS
    cost = plain_token + length * PRICES.slot
    assert expected_tokens(rate, length) / cost >= (1 - 1e-9) / plain_token


def test_a_drafter_that_costs_much_drafts_less() -> None:
    cheap, dear = progress(0.8, 0.2), progress(0.8, 0.2, draft_seconds=0.0076)
    first, second = ByPrice(PRICES).draft_tokens([cheap, dear])
    assert first > second
    assert ByPrice(PRICES).draft_tokens([progress(0.8, 0.2, draft_seconds=0.02)] * 8) == [0] * 8


def test_a_tree_pays_only_if_its_own_run_is_worth_it() -> None:
    def tree(accepted: float) -> Progress:
        return Progress(shares=False, accepted=accepted, rejected=1, drafts=1, slots=8)

    assert ByPrice(PRICES).draft_tokens([tree(3)]) == [MOST_TOKENS]
    assert ByPrice(PRICES).draft_tokens([tree(3)] * 8) == [0] * 8


def test_slots_that_cost_nothing_are_all_used() -> None:
    assert ByPrice(Prices(run=0.1)).draft_tokens([progress(0.1, 0.9)]) == [MOST_TOKENS]
    assert Prices(run=0.1).slots(4, 0.5) == MOST_TOKENS
    assert PRICES.slots(4, 1.0) == int((0.030 + 4 * 0.0031) / 0.0026)


def test_progress_follows_the_counts_and_a_request_that_rests_tries_again() -> None:
    request, stats = Progress(), Stats(recipe="any")
    prior = request.rate
    for _ in range(30):
        stats.drafted += 4
        request.charge(0.01)
        request.charge(0.99)
        request.observe(stats)
    assert request.rate < 0.1
    assert request.draft_seconds == pytest.approx(0.01 / 4, rel=0.1)
    assert ByPrice(PRICES).draft_tokens([request] * 8) == [0] * 8
    steps = 0
    while not ByPrice(PRICES).draft_tokens([request] * 8)[0]:
        request.observe(stats)
        steps += 1
    assert 10 < steps < 100 and request.rate < prior
    stats.drafted, stats.accepted = stats.drafted + 4, stats.accepted + 4
    before = request.rate
    request.observe(stats)
    assert request.rate > before and (request.last_length, request.last_accepted) == (4, 4)


def test_bass_grows_after_a_whole_draft_and_shrinks_faster_after_a_second_failure() -> None:
    policy = Bass()

    def step(*accepted: int) -> int:
        members = [Progress(last_length=policy.schedule.count, last_accepted=count) for count in accepted]
        (length,) = set(policy.draft_tokens(members))
        return length

    assert policy.draft_tokens([Progress()]) == [7]
    assert [step(7, 0), step(9, 1), step(2, 3), step(1, 1), step(1, 6)] == [9, 11, 9, 7, 6]


def with_plan(model: Model, plan: object) -> Manifest:
    """Return the manifest of a model with something where the plan of a tuning stands."""
    return replace(model.bundle.manifest, extra={"plan": plan})


@pytest.mark.parametrize("plan", [None, {}, {"recipe": "plain"}, {"prices": None}, 3])
def test_a_bundle_may_have_no_prices(toy_model: Model, plan: object) -> None:
    assert planned_prices(with_plan(toy_model, plan)) is None
    assert planned_prices(toy_model.bundle.manifest) is None


def test_the_prices_of_a_plan_are_read(toy_model: Model) -> None:
    plan = {"prices": {"run": 0.03, "lane": 0, "slot": 0.002}}
    assert planned_prices(with_plan(toy_model, plan)) == Prices(run=0.03, slot=0.002)


@pytest.mark.parametrize(
    ("prices", "reason"),
    [
        ([], r"plan\.prices: expected dict, found \[\]"),
        ({"run": "fast"}, r"plan\.prices\.run: expected (float|number), found 'fast'"),
        ({"run": float("nan")}, r"plan\.prices\.run: nan is not a finite number"),
        ({"lane": -0.5}, r"plan\.prices: lane is -0\.5 seconds; tune the bundle again"),
    ],
)
def test_prices_of_another_form_are_refused(toy_model: Model, prices: object, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        planned_prices(with_plan(toy_model, {"prices": prices}))


def test_a_new_request_begins_with_what_earlier_ones_of_its_recipe_learned() -> None:
    """So a recipe that does not pay at this load costs the first requests a few drafts, and the others none."""
    common, policy = Experience(), ByPrice(PRICES)
    assert common.begin().rate == Progress().rate and common.begin().slots == Progress().slots

    def drafted_in_vain(seconds: float) -> int:
        """Return how many tokens a request of 40 steps drafts, of which none is right."""
        request, stats = common.begin(), Stats(recipe="any")
        for _ in range(40):
            length = policy.draft_tokens([request] * 8)[0]
            stats.drafted += length
            for run in ([seconds * length] if length else []) + [0.03]:
                request.charge(run)
            request.observe(stats)
        return stats.drafted

    tokens = [drafted_in_vain(0.0005) for _ in range(5)]
    assert tokens[0] > 12 and max(tokens[2:]) <= 3
    request = common.begin()
    assert request.rate == pytest.approx(common.rate) and request.draft_seconds == pytest.approx(0.0005)
    assert request.accepted + request.rejected == pytest.approx(Progress.accepted + Progress.rejected)
    for _ in range(200):  # Drafts of one that goes well change what the next one expects.
        common.add(4, 4, 0.0)
    assert policy.draft_tokens([common.begin()] * 8)[0] > 3


def test_a_request_whose_tries_fail_waits_longer_before_each() -> None:
    request, stats, policy = Progress(), Stats(recipe="any"), ByPrice(PRICES)
    rests, steps = list[int](), 0
    while len(rests) < 8:
        length = policy.draft_tokens([request] * 8)[0]
        if length and steps:
            rests.append(steps)
        steps = 0 if length else steps + 1
        stats.drafted += length
        request.observe(stats)
    assert rests[0] < rests[1] < rests[2] < rests[3] and 8 * rests[0] < rests[-1] < 100
    assert rests[-1] == pytest.approx(rests[-2], abs=2)  # The longest rest.
    stats.drafted, stats.accepted = stats.drafted + 4, stats.accepted + 4
    request.observe(stats)  # One that succeeds ends that.
    for _ in range(12):
        stats.drafted += 4
        request.observe(stats)
    steps = 0
    while not policy.draft_tokens([request] * 8)[0]:
        steps += 1
        request.observe(stats)
    assert steps < 100
