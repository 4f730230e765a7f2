"""The verb `recipes`: the table of methods as JSON and as text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shell import fits, refused, specc

from specc.recipes import METHODS
from specc.recipes.entry import Family


def test_recipes_are_those_of_the_table() -> None:
    report = specc("recipes", "--json").json
    keys = {
        *("name", "title", "family", "try_when", "about", "paper", "departures", "drafter", "topology", "length"),
        *("schedule", "caches", "acceptance", "lossless", "needs", "by_default", "parameters", "engines"),
    }
    assert all(r.keys() == keys for r in report)
    assert [r["name"] for r in report] == list(METHODS)
    for r in report:
        assert [p["name"] for p in r["parameters"]] == list(METHODS[r["name"]].parameters)
        assert all(p.keys() == {"name", "default", "help", "paper"} for p in r["parameters"])
        assert all(e.keys() == {"role", "model", "topology", "slots"} for e in r["engines"])


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_is_shown_with_all_that_it_takes(name: str) -> None:
    result = specc("recipes", "show", name)
    assert result.status == 0
    words = " ".join(result.out.split())  # a long text takes several lines
    method = METHODS[name]
    assert method.title in words and method.about in words and method.try_when in words
    assert all(departure in words for departure in method.departures)
    assert all(parameter in result.out for parameter in method.parameters)
    assert specc("recipes", name).out == result.out
    assert specc("recipes", "show", name, "--json").json in specc("recipes", "--json").json


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_says_in_five_sentences_what_it_does(name: str) -> None:
    about = METHODS[name].about
    assert about.endswith(".") and about.count(". ") == 4


def test_a_recipe_file_is_shown_as_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("base = 'layer-skip'\nlength = 'cumulative'\n", encoding="utf-8")
    report = specc("recipes", "show", file, "--json").json
    assert (report["name"], report["length"], report["lossless"]) == ("mine", "cumulative", True)
    file.write_text("drafter = 'layer-skip'\n", encoding="utf-8")
    assert "It starts from the recipe layer-skip," in " ".join(specc("recipes", "show", file).out.split())
    file.write_text("base = 'layer-skip'\nlength = 'culumative'\n", encoding="utf-8")
    assert refused("recipes", "show", file) == f"{file}: length is 'culumative'; did you mean 'cumulative'?"
    file.write_text("base = 'bild'\n[parameters]\nfallback_threshold = 1.5\n", encoding="utf-8")
    assert refused("recipes", "show", file) == f"{file}: fallback_threshold is 1.5; give a number from 0 to 1"


def test_the_words_of_the_axes_are_listed_with_what_goes_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    report, result = specc("recipes", "--axes", "--json").json, specc("recipes", "--axes")
    fits(result.out, 80)
    assert list(report) == ["drafters", "topologies", "lengths", "acceptance rules", "schedules"]
    for axis, words in report.items():
        assert re.search(rf"^{axis}$", result.out, re.M)
        for word in words:
            assert re.search(rf"^{word['name']} ", result.out, re.M)
    assert {"name", "help", "topologies", "lengths", "rules", "recipes"} == report["drafters"][0].keys()
    assert specc("recipes", "--json").json != report


def test_an_option_before_the_name_of_a_recipe_is_not_ignored() -> None:
    assert specc("recipes", "--json", "jacobi").json == specc("recipes", "show", "jacobi", "--json").json
    for words in (("show", "jacobi"), ("jacobi",)):
        assert refused("recipes", "--axes", *words).startswith("--axes lists the words of all axes; leave it out")


def test_an_unknown_recipe_names_the_nearest() -> None:
    for words in (("show", "prompt-lokup"), ("prompt-lokup",)):
        assert refused("recipes", *words) == "no recipe 'prompt-lokup'; did you mean 'prompt-lookup'?"


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


def test_recipes_are_grouped_by_where_their_drafts_come_from() -> None:
    out = specc("recipes").out
    groups = re.split("|".join(re.escape(family.value) for family in Family), out)[1:]
    families = [family for family in Family if family.value in out]
    assert len(groups) == len(families) == len({m.family for m in METHODS.values()})
    for name, method in METHODS.items():
        assert re.search(rf"^{name} ", groups[families.index(method.family)], re.M)


def test_a_row_of_the_list_says_what_the_recipe_is_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    rows = specc("recipes").out.split("\n\n")
    (row,) = [text for text in rows if re.search("^bild ", text, re.M)]
    words = " ".join(row.split())
    for word in ("Kim et al. 2023", "draft-model", "chain", "fallback", "distance", "lossy", "--assistant-model"):
        assert word in words
