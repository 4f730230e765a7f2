"""The words of the axes: each that the table uses is one of them."""

from __future__ import annotations

import pytest

from specc.recipes import METHODS, Method
from specc.recipes.axes import CACHES, LENGTHS, RULES, SCHEDULES, caches, rule_axis, topologies
from specc.recipes.blocks import LENGTH_ARGUMENTS
from specc.recipes.entry import Family
from specc.runtime.lengths import LengthPolicy
from specc.runtime.method import load_acceptance


@pytest.mark.parametrize("m", METHODS.values(), ids=METHODS)
def test_the_words_of_a_method_are_on_the_axes(m: Method) -> None:
    assert m.length in LENGTHS and m.acceptance in RULES and m.topology in topologies(METHODS, m.drafter)
    axis = LENGTHS[m.length].parameters
    if axis and m.length not in ("confidence", "heuristic", "bass"):
        assert axis.keys() <= m.parameters.keys()


@pytest.mark.parametrize("m", METHODS.values(), ids=METHODS)
def test_the_schedule_and_the_caches_of_a_method_are_on_the_axes(m: Method) -> None:
    assert m.schedule in SCHEDULES
    assert set(caches(m)) <= {*CACHES, *(method.head for method in METHODS.values())}
    assert (m.schedule == "routed") == (m.family is Family.ROUTING)


def test_the_caches_of_a_draft_follow_from_its_engines() -> None:
    assert caches(METHODS["prompt-lookup"]) == ()
    assert caches(METHODS["swift"]) == ("target",)
    assert caches(METHODS["short-context"]) == ("short",)
    assert caches(METHODS["fs-gen-proxy"]) == ("assistant", "untuned")


def test_every_word_of_the_schedules_is_one_of_a_method() -> None:
    assert {m.schedule for m in METHODS.values()} == SCHEDULES.keys()


@pytest.mark.parametrize("word", LENGTHS)
def test_a_length_is_a_policy_that_its_defaults_make(word: str) -> None:
    axis = LENGTHS[word]
    assert axis.help
    values = {name: p.default for name, p in (axis.parameters or {}).items()}
    assert values.keys() <= set(LENGTH_ARGUMENTS)
    if values:
        assert LengthPolicy(**values) != LengthPolicy()


@pytest.mark.parametrize("name", RULES)
def test_the_defaults_of_a_rule_are_in_its_ranges(name: str) -> None:
    rule = load_acceptance(name)
    parameters = rule_axis(rule)
    assert parameters.keys() == rule.ranges.keys()
    for parameter, (least, most) in rule.ranges.items():
        assert least <= parameters[parameter].default <= most
