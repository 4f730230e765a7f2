"""The cost model, computed by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specc.runtime.recipe import Recipe
from specc.tuning.acceptance_stats import Calibration, Step
from specc.tuning.draft_replay import NEVER, DraftRecord
from specc.tuning.policy import TUNING
from specc.tuning.speedup_model import Call, candidates, drop_widths, predict, rank_candidates
from specc.tuning.step_costs import StepCost

CALLS = {"decode": Call(1, 10.0), "two": Call(2, 11.0), "wide": Call(4, 15.0), "draft": Call(1, 2.0)}
DRAFTED = {"draft": 3.0}
CHAIN = Recipe(
    name="chain",
    drafter="chain",
    verify=("decode", "wide"),
    engines={"draft": "draft"},
    parameters={"num_speculative_tokens": 3},
)


def test_a_prediction_is_tokens_by_the_cost_of_their_calls() -> None:
    steps = [Step(3, 3, DRAFTED, ()), Step(3, 0, DRAFTED, ()), Step(0, 0, {}, ())]
    cost = 2 * (3 * 2.0 + 15.0 + 1.0) + (10.0 + 1.0)
    assert predict(CHAIN, CHAIN, steps, CALLS, 1.0) == pytest.approx((4 + 1 + 1) / cost)


def test_shorter_drafts_are_predicted_from_longer_ones() -> None:
    shorter = candidates(CHAIN, CALLS)[0]
    assert shorter.parameters == {"num_speculative_tokens": 1}
    steps = [Step(3, 3, DRAFTED, ()), Step(3, 1, DRAFTED, ())]
    assert predict(shorter, CHAIN, steps, CALLS, 0.0) == pytest.approx(4 / (2 * (2.0 + 15.0)))


def test_lengths_are_tried_if_one_parameter_says_all_of_a_draft() -> None:
    assert [c.parameters["num_speculative_tokens"] for c in candidates(CHAIN, CALLS)] == [1, 2, 3]
    parameters = {"tree": [-1, 0, 0], "num_speculative_tokens": 2}
    tree = Recipe(name="tree", drafter="tree", verify=("wide",), parameters=parameters)
    assert candidates(tree, CALLS) == [tree]


CONFIDENT = replace(CHAIN, parameters={"num_speculative_tokens": 2, "assistant_confidence_threshold": NEVER})
TREE = Recipe(
    name="tree",
    drafter="tree",
    verify=("decode", "two", "wide"),
    engines={"draft": "draft"},
    parameters={"num_speculative_tokens": 3, "max_depth": 2, "step_costs": []},
)


def test_a_chain_that_ends_by_confidence_is_tried_with_every_threshold() -> None:
    options = [tuple(c.parameters.values()) for c in candidates(CONFIDENT, CALLS)]
    assert options == [(length, threshold) for length in (1, 2) for threshold in TUNING.thresholds]


def test_an_unlikely_token_is_worth_a_threshold() -> None:
    record = DraftRecord((-1, 0, 1), (1.0, 0.2, 0.1), (0,))
    steps = [Step(2, 0, {"draft": 2.0}, (), record)] * 9
    shorter = replace(CONFIDENT, parameters={"num_speculative_tokens": 2, "assistant_confidence_threshold": 0.3})
    assert predict(shorter, CONFIDENT, steps, CALLS, 0.0) == pytest.approx(1 / (2.0 + 15.0))


def test_a_tree_gets_the_measured_costs_of_its_steps_and_every_depth() -> None:
    costs = [[1, 1.0], [2, 1.1], [4, 1.5]]
    assert [(c.parameters["max_depth"], c.parameters["step_costs"]) for c in candidates(TREE, CALLS)] == [
        (1, costs),
        (2, costs),
    ]
    copies = replace(TREE, parameters={**TREE.parameters, "match_rates": (0.5,)})
    assert [c.parameters["max_depth"] for c in candidates(copies, CALLS)] == [2]
    recipe = replace(TREE, parameters={**TREE.parameters, "step_costs": [[1, 1.0], [4, 1.4]]})
    assert all(c.parameters["step_costs"] == [[1, 1.0], [4, 1.4]] for c in candidates(recipe, CALLS))


def test_a_smaller_tree_saves_slots_and_calls_and_loses_what_it_would_not_have_drafted() -> None:
    record = DraftRecord((-1, 0, 0, 1), (1.0, 0.5, 0.1, 0.05), (0, 1, 3))
    steps = [Step(3, 2, {"draft": 1.0}, (), record)]
    calls = CALLS | {"two": Call(2, 11.0)}
    whole, pruned = candidates(TREE, calls)[1], candidates(TREE, calls)[0]
    # Of the values 0.5, 0.1, 0.05 only the first is worth more than it costs.
    assert predict(whole, TREE, steps, calls, 0.0) == pytest.approx(2 / (2.0 + 11.0))
    assert predict(pruned, TREE, steps, calls, 0.0) == pytest.approx(2 / 11.0)
    assert predict(TREE, TREE, steps, calls, 0.0) == pytest.approx(3 / (2.0 + 15.0))


def test_a_shorter_draft_needs_no_wider_engine_than_holds_it() -> None:
    wide = replace(CHAIN, verify=("decode", "two", "wide"))
    assert [c.verify for c in candidates(wide, CALLS)] == [("decode", "two"), wide.verify, wide.verify]


def test_a_width_that_hardly_helps_is_left_out() -> None:
    recipe = replace(CHAIN, verify=("decode", "two", "wide"))

    def verify_after(steps: list[Step]) -> tuple[str, ...]:
        return drop_widths(recipe, lambda r: predict(r, recipe, steps, CALLS, 0.0)).verify

    long, short = Step(3, 3, {}, ()), Step(1, 1, {}, ())
    assert verify_after([long] * 9 + [short]) == ("decode", "two", "wide")  # It saves 4 of 146 units.
    assert verify_after([long] * 99 + [short]) == ("decode", "wide")  # It saves 4 of 1496 units.


def test_the_fastest_length_comes_first() -> None:
    steps = [Step(3, 1, DRAFTED, ())] * 4
    costs = {name: StepCost(name, call.slots, 64, call.cost, 0.0) for name, call in CALLS.items()}
    first, *others = rank_candidates(CHAIN, Calibration(steps, {}, 0.0), costs)
    assert first.recipe.parameters == {"num_speculative_tokens": 1}
    assert [c.speedup for c in others] == sorted((c.speedup for c in others), reverse=True)


def test_engines_that_hardly_ran_cost_as_much_more_as_the_others_did() -> None:
    """In the loop `wide` cost twice its time apart, so `draft` is taken to cost twice its time, too."""
    steps = [Step(3, 3, {"draft": 1.0}, ())]
    costs = {name: StepCost(name, call.slots, 64, call.cost, 0.0) for name, call in CALLS.items()}
    recipe = replace(CHAIN, parameters={})
    [candidate] = rank_candidates(recipe, Calibration(steps, {"wide": 30.0}, 0.0), costs)
    assert candidate.speedup == pytest.approx(4 / (2 * 2.0 + 30.0))
