"""The words of the axes: each that the table uses is one of them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from specc.recipes import METHODS, Method, method
from specc.recipes.axes import (
    CACHES,
    LENGTHS,
    RULES,
    SCHEDULES,
    TOPOLOGIES,
    caches,
    corpus_readers,
    drafters,
    lengths_for,
    rule_axis,
    rules_for,
    topologies,
)
from specc.recipes.blocks import LENGTH_ARGUMENTS
from specc.recipes.engines import USUAL, any_facts, plan_for_any
from specc.recipes.entry import Family
from specc.runtime.errors import RecipeError
from specc.runtime.lengths import LengthPolicy
from specc.runtime.method import load_acceptance


@pytest.mark.parametrize("m", METHODS.values(), ids=METHODS)
def test_the_words_of_a_method_are_on_the_axes(m: Method) -> None:
    assert m.length in LENGTHS and m.acceptance in RULES and m.topology in topologies(METHODS, m.drafter)
    assert m.length in lengths_for(m) and m.acceptance in rules_for(m, METHODS)
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


def test_every_word_of_the_schedules_and_of_the_topologies_is_one_of_a_method() -> None:
    assert {m.schedule for m in METHODS.values()} == SCHEDULES.keys()
    assert {m.topology for m in METHODS.values()} == TOPOLOGIES.keys()
    assert {m.name for group in drafters(METHODS).values() for m in group} == METHODS.keys()


@pytest.mark.parametrize("m", METHODS.values(), ids=METHODS)
def test_a_recipe_file_may_give_a_method_the_lengths_and_rules_that_it_takes_and_no_others(
    m: Method, tmp_path: Path
) -> None:
    for axis, words, those in (
        ("length", LENGTHS, lengths_for(m)),
        ("acceptance", RULES, rules_for(m, METHODS)),
    ):
        for word in words:
            file = tmp_path / "mine.toml"
            file.write_text(f"base = '{m.name}'\n{axis} = '{word}'\n", encoding="utf-8")
            if word in those:
                assert getattr(method(str(file)), axis) == word
            else:
                with pytest.raises(RecipeError, match=axis):
                    method(str(file))


def test_a_rule_that_cannot_serve_a_drafter_is_not_among_its_rules() -> None:
    """Lookup cannot sample, trees are no chains, and only one recipe has a head that judges."""
    assert "speculative" not in rules_for(METHODS["prompt-lookup"], METHODS)
    assert "speculative" not in rules_for(METHODS["dynamic-tree"], METHODS)
    assert "judge" not in rules_for(METHODS["draft-model"], METHODS)
    assert {"speculative", "judge"} <= set(rules_for(METHODS["judge-decoding"], METHODS))


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


@pytest.mark.parametrize("m", METHODS.values(), ids=METHODS)
def test_a_method_reads_a_corpus_if_its_plan_gives_one_to_the_drafter(m: Method) -> None:
    facts = [replace(each, corpus=True) for each in (USUAL, *any_facts(m))]
    blocks = plan_for_any(partial(m.plan, m.settle({})), facts)
    assert ("corpus" in blocks.arguments) == (m.name in corpus_readers(METHODS))
