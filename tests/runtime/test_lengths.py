"""Length policies, one decision at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from toys import HEADS, Toy, World, prompts

from specc.recipes import HeadFacts
from specc.runtime.draft import Outputs
from specc.runtime.errors import RecipeError
from specc.runtime.lengths import (
    Adaptive,
    Bass,
    Confidence,
    Cumulative,
    Fallback,
    Foreseen,
    Gate,
    Heuristic,
    Length,
    LengthPolicy,
    Margin,
    Schedule,
    Stop,
    schedule_of,
)

PROMPTS = prompts(6, seed=2)


def counts(schedule: Schedule, shares: list[float]) -> list[int]:
    """Return the counts of a schedule, from its first on, if of each draft this share was accepted."""
    result = [schedule.count]
    for share in shares:
        schedule.observe(schedule.count, int(share * schedule.count))
        result.append(schedule.count)
    return result


def test_a_constant_schedule_stays() -> None:
    assert counts(Schedule(6), [1, 0, 0.5]) == [6, 6, 6, 6]


def test_the_heuristic_takes_two_more_or_one_less_and_one_at_least() -> None:
    assert counts(Heuristic(8), [1, 1, 0.5, 0, 0, 0, 0, 0, 0, 0, 0, 1]) == [5, 7, 8, 7, 6, 5, 4, 3, 2, 1, 1, 1, 3]


def test_the_rule_of_bass_shrinks_faster_when_a_draft_fails_again() -> None:
    """By hand from the paper's rule: l - ceil(l / 10) - s, and never below what was accepted."""
    assert counts(Bass(40), [1] * 14)[-3:] == [31, 32, 32]
    assert counts(Bass(40), [0, 0, 0, 1, 0, 0]) == [7, 6, 4, 2, 4, 3, 1]
    assert counts(Bass(40), [1, 1, 0.95, 0.95]) == [7, 9, 11, 10, 9]
    long = Bass(40)
    long.count, long.repeats = 30, 1
    long.observe(30, 29)
    assert long.count == 29


@pytest.mark.parametrize("schedule", [Heuristic, Bass])
def test_no_schedule_exceeds_what_is_compiled(schedule: type[Schedule]) -> None:
    assert counts(schedule(3), [1, 1, 0, 1]) == [3, 3, 3, 2, 3]


def test_confidence_ends_a_draft_after_a_token_below_the_threshold() -> None:
    length = Length(Schedule(5), [Confidence(0.4)])
    assert length.begin() == 5 and length.reads_probability
    assert [length.goes_on(p) for p in (0.9, 0.4, 0.39)] == [True, True, False]


def test_specdec_ends_a_draft_when_the_product_of_its_probabilities_says_that_a_rejection_is_likely() -> None:
    """Each draft begins anew."""
    length = Length(Schedule(9), [Cumulative(0.3)])
    for _ in range(2):
        length.begin()
        assert [length.goes_on(p) for p in (0.9, 0.9, 0.9, 0.95)] == [True, True, True, False]


def test_specdec_with_a_head_ends_a_draft_before_the_token_behind_one_that_is_likely_rejected() -> None:
    """The pending token's own state says nothing of the draft. Each draft begins anew."""
    length = LengthPolicy(num_speculative_tokens=9, rejection_threshold=0.3, acceptance_head="probe").open()
    (stop,) = length.stops
    assert isinstance(stop, Foreseen) and not length.reads_probability
    for _ in range(2):
        length.begin()
        for probability, goes_on in ((0.01, True), (0.9, True), (0.9, True), (0.8, False)):  # 0.9 * 0.9 * 0.8 < 0.7
            state = np.array([[np.log(probability / (1 - probability))]], np.float32)
            assert length.takes(Outputs(np.array([4]).data, states={"probe": state})) is goes_on
    for logit, goes_on in ((1e9, True), (-1e9, False)):
        length.begin()
        length.takes(Outputs(np.array([4]).data))
        assert length.takes(Outputs(np.array([4]).data, states={"probe": np.array([[logit]])})) is goes_on


def test_a_gate_ends_a_draft_before_a_token_that_is_likely_wrong() -> None:
    length = LengthPolicy(num_speculative_tokens=9, gate="exit", gate_threshold=0.4).open()
    (stop,) = length.stops
    assert isinstance(stop, Gate) and not length.reads_probability
    length.begin()
    for probability, takes in ((0.9, True), (0.41, True), (0.39, False)):
        state = np.array([[np.log(probability / (1 - probability))]], np.float32)
        assert length.takes(Outputs(np.array([4]).data, states={"exit": state})) is takes
    with pytest.raises(RecipeError, match="returns no state of the head 'exit'; compile the bundle again"):
        length.takes(Outputs(np.array([4]).data))
    with pytest.raises(RecipeError, match="gate is 3; give the name of a trained head"):
        LengthPolicy(gate=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("values", [{"gate": "exit"}, {"gate_threshold": 0.4}])
def test_a_gate_needs_a_head_and_a_threshold(values: dict[str, Any]) -> None:
    assert LengthPolicy(**values).open().stops == ()


def test_a_policy_whose_head_the_engine_lacks_is_refused() -> None:
    stop = Foreseen(0.3, "probe")
    assert stop.takes(Outputs(np.array([4]).data))
    with pytest.raises(RecipeError, match="returns no state of the head 'probe'; compile the bundle again"):
        stop.takes(Outputs(np.array([4]).data))
    with pytest.raises(RecipeError, match="acceptance_head is 3; give the name of a trained head"):
        LengthPolicy(acceptance_head=3)  # type: ignore[arg-type]


def test_drafts_that_end_by_a_head_leave_the_tokens_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    class Probe(Toy):
        """A draft model whose head is sure of some tokens and not of others."""

        def run(self) -> None:
            super().run()
            if "state_specdec_plus_plus" in self.outputs:
                states = self.outputs["state_specdec_plus_plus"]
                states[:] = states % 8 - 2

    plain = World().method("plain").run(PROMPTS[0], 60)[0]
    monkeypatch.setitem(HEADS, "specdec_plus_plus", HeadFacts(recurrent=False, attends=False, reads="assistant"))
    decoder = World(runner=Probe).method("specdec-plus-plus", assistant=True)
    assert decoder.run(PROMPTS[0], 60)[0] == plain
    assert len({draft.tree.slots for draft, _ in decoder.drafts(PROMPTS[1])}) > 3


def test_a_fallback_refuses_a_token_if_even_the_likeliest_is_unlikely() -> None:
    length = Length(Schedule(9), [Fallback(0.6)])
    for top, takes in ((0.59, False), (0.61, True)):
        ids, logprobs = np.array([[4, 2]]), np.log(np.array([[top, 1 - top]]))
        assert length.takes(Outputs(np.array([4]).data, None, ids, logprobs)) is takes
    assert length.goes_on(0.0) and not length.reads_probability


def test_the_threshold_of_draft_and_verify_follows_the_share_of_accepted_tokens() -> None:
    """By hand from the paper's rule, with beta 0.5 and 0.9 and steps of 0.01."""
    stop = Adaptive(0.6, aim=0.9)
    stop.observe(4, 2)  # a share of 0.5 * 0.9 + 0.5 * 0.5 = 0.7, which is too few
    assert stop.share == pytest.approx(0.7) and stop.threshold == pytest.approx(0.601)
    for _ in range(3):  # shares of 0.85, 0.925, 0.9625
        stop.observe(5, 5)
    assert stop.threshold == pytest.approx(0.601 + 0.001 - 0.001 - 0.001)
    for _ in range(10_000):
        stop.observe(1, 0)
    assert stop.threshold == 1 and not stop.goes_on(0.99)


def test_a_margin_refuses_a_token_if_the_second_one_is_close() -> None:
    stop = Margin(0.2)
    for top, takes in ((0.69, False), (0.71, True)):
        ids, logprobs = np.array([[4, 2]]), np.log(np.array([[top, 1 - top]]))
        assert stop.takes(Outputs(np.array([4]).data, None, ids, logprobs)) is takes
    one = Outputs(np.array([4]).data, None, np.array([[4]]), np.log(np.array([[0.5]])))
    assert stop.takes(one)


def test_a_policy_makes_what_its_parameters_say() -> None:
    everything = LengthPolicy(
        num_speculative_tokens=9,
        num_assistant_tokens_schedule="bass",
        assistant_confidence_threshold=0.5,
        target_acceptance_rate=0.8,
        rejection_threshold=0.4,
        fallback_threshold=0.3,
        margin_threshold=0.1,
    ).open()
    assert isinstance(everything.schedule, Bass) and everything.schedule.most == 9
    assert [type(stop) for stop in everything.stops] == [Adaptive, Cumulative, Fallback, Margin]
    assert LengthPolicy().open().stops == ()
    (stop,) = LengthPolicy(assistant_confidence_threshold=0.5).open().stops
    assert type(stop) is Confidence


def test_a_length_lets_its_stops_learn_from_steps_that_drafted() -> None:
    length = LengthPolicy(assistant_confidence_threshold=0.5, target_acceptance_rate=0.9).open()
    (stop,) = length.stops
    assert isinstance(stop, Adaptive)
    length.observe(0, 0)
    assert stop.threshold == 0.5
    length.observe(4, 0)
    assert stop.threshold > 0.5


def test_any_stop_ends_a_draft() -> None:
    for stops in ([Confidence(0.9), Cumulative(0.9)], [Cumulative(0.9), Confidence(0.9)]):
        length = Length(Schedule(9), stops)
        length.begin()
        assert length.goes_on(0.95) and not length.goes_on(0.8)
    length = Length(Schedule(9), [Confidence(0.1), Cumulative(0.3)])
    length.begin()
    assert length.goes_on(0.8) and not length.goes_on(0.8)
    assert not Length(Schedule(2), [Stop()]).reads_probability


@pytest.mark.parametrize("name", ["heurstic", None, 3, ""])
def test_a_schedule_that_does_not_exist_is_refused(name: Any) -> None:
    with pytest.raises(RecipeError, match=r"_schedule is .*; choose one of constant, heuristic, bass"):
        schedule_of(name)


def test_a_schedule_follows_the_drafts_of_a_request() -> None:
    decoder = World().method(
        "draft-model", assistant=True, num_speculative_tokens=12, num_assistant_tokens_schedule="heuristic"
    )
    lengths = [draft.tree.slots - 1 for draft, _ in decoder.drafts(PROMPTS[0])]
    assert lengths[0] == 5 and len(set(lengths)) > 3
    assert all(after - before in (2, -1) or before == after == 1 for before, after in pairwise(lengths))


def rejected(name: str, **parameters: Any) -> tuple[float, float]:
    """Return how many drafted tokens a step were accepted and rejected, over some prompts."""
    accepted = drafted = steps = 0
    decoder = World().method(name, assistant=True, **parameters)
    for prompt in PROMPTS:
        for draft, _ in decoder.drafts(prompt):
            drafted, steps = drafted + len(draft.tokens) - 1, steps + 1
        accepted += len(decoder.world.cache) - len(prompt)
    return (accepted - steps) / steps, (drafted - accepted + steps) / steps


@pytest.mark.slow
@pytest.mark.thorough
def test_specdec_rejects_fewer_tokens_than_a_fixed_length_that_has_as_many_accepted() -> None:
    adaptive, lost = rejected("specdec-plus-plus", rejection_threshold=0.7)
    fixed = [rejected("draft-model", num_speculative_tokens=count) for count in range(1, 16)]
    assert adaptive > 1
    lost_by_fixed = min(lost for accepted, lost in fixed if accepted >= adaptive)
    assert lost < lost_by_fixed
