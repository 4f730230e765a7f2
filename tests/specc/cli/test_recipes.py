"""The verb `recipes`: the table of methods as JSON and as text."""

from __future__ import annotations

import re

import pytest
from shell import fits, refused, specc

from specc.recipes import METHODS


def test_recipes_are_those_of_the_table() -> None:
    report = specc("recipes", "--json").json
    keys = {
        "name",
        "title",
        "try_when",
        "paper",
        "drafter",
        "acceptance",
        "topology",
        "lossless",
        "needs",
        "parameters",
    }
    assert all(r.keys() == keys for r in report)
    assert [r["name"] for r in report] == list(METHODS)
    for r in report:
        assert [p["name"] for p in r["parameters"]] == list(METHODS[r["name"]].parameters)
        assert all(p.keys() == {"name", "default", "help"} for p in r["parameters"])


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_is_shown_with_all_that_it_takes(name: str) -> None:
    result = specc("recipes", name)
    assert result.status == 0
    assert METHODS[name].title in " ".join(result.out.split())  # a long title takes two lines
    assert all(parameter in result.out for parameter in METHODS[name].parameters)
    assert specc("recipes", name, "--json").json == [r for r in specc("recipes", "--json").json if r["name"] == name]


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert refused("recipes", "prompt-lokup") == "no recipe 'prompt-lokup'; did you mean 'prompt-lookup'?"


@pytest.mark.parametrize("columns", [80, 140])
def test_the_recipes_fit(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    fits(specc("recipes").out, columns)
    for name in METHODS:
        fits(specc("recipes", name).out, columns)


def test_each_recipe_says_when_to_try_it() -> None:
    sentences = [method.try_when for method in METHODS.values()]
    assert all(20 < len(sentence) <= 100 and sentence.endswith(".") for sentence in sentences)
    assert len(set(sentences)) == len(METHODS)
    out = " ".join(specc("recipes", "prompt-lookup").out.split())
    assert f"try it when {METHODS['prompt-lookup'].try_when}" in out


def test_recipes_are_grouped_by_what_they_need() -> None:
    out = specc("recipes").out
    heading = "Recipes that need --assistant-model:"
    first, second = out.split(heading)
    assert first.startswith("Recipes that need nothing but the model:")
    for name, method in METHODS.items():
        assert re.search(rf"^{name} ", second if method.needs else first, re.M)
