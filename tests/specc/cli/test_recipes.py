"""The verb `recipes`: the table of methods as JSON and as text."""

from __future__ import annotations

import pytest
from shell import fits, refused, specc

from specc.recipes import METHODS


def test_recipes_are_those_of_the_table() -> None:
    report = specc("recipes", "--json").json
    keys = {"name", "title", "paper", "drafter", "acceptance", "topology", "lossless", "needs", "parameters"}
    assert all(r.keys() == keys for r in report)
    assert [r["name"] for r in report] == list(METHODS)
    for r in report:
        assert [p["name"] for p in r["parameters"]] == list(METHODS[r["name"]].parameters)
        assert all(p.keys() == {"name", "default", "help"} for p in r["parameters"])


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_is_shown_with_all_that_it_takes(name: str) -> None:
    ran = specc("recipes", name)
    assert ran.status == 0
    assert METHODS[name].title in " ".join(ran.out.split())  # a long title takes two lines
    assert all(parameter in ran.out for parameter in METHODS[name].parameters)
    assert specc("recipes", name, "--json").json == [r for r in specc("recipes", "--json").json if r["name"] == name]


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert refused("recipes", "prompt-lokup") == "no recipe 'prompt-lokup'; did you mean 'prompt-lookup'?"


@pytest.mark.parametrize("columns", [80, 140])
def test_the_recipes_fit(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    fits(specc("recipes").out, columns)
    for name in METHODS:
        fits(specc("recipes", name).out, columns)
