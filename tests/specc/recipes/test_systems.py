"""The list of published systems names recipes that exist, and every recipe has its place in it."""

from __future__ import annotations

import re

import pytest

from specc.recipes import METHODS
from specc.recipes.systems import OTHER_RECIPES, SYSTEMS, System


def test_there_are_58_systems_numbered_from_one() -> None:
    assert [s.number for s in SYSTEMS] == list(range(1, 59))
    assert len({s.name for s in SYSTEMS}) == len({s.paper for s in SYSTEMS}) == 58


@pytest.mark.parametrize("system", SYSTEMS, ids=lambda s: s.name)
def test_a_system_names_papers_and_recipes_that_exist(system: System) -> None:
    assert re.fullmatch(r"\d{4}\.\d{5}(, \d{4}\.\d{5})*", system.paper)
    assert set(system.recipes) <= set(METHODS)
    assert system.recipes or not system.missing


def test_every_recipe_is_named_by_a_system_or_is_listed_as_another() -> None:
    recipes = {name for system in SYSTEMS for name in system.recipes}
    assert recipes.isdisjoint(OTHER_RECIPES)
    assert recipes | set(OTHER_RECIPES) == set(METHODS)


def test_a_system_works_in_part_if_something_is_missing() -> None:
    assert System(1, "a", "b").state == "not yet"
    assert System(1, "a", "b", ("plain",)).state == "works"
    assert System(1, "a", "b", ("plain",), "much").state == "in part"


@pytest.mark.parametrize("system", [s for s in SYSTEMS if s.state == "works"], ids=lambda s: s.name)
def test_a_recipe_of_a_system_that_works_cites_its_paper(system: System) -> None:
    for name in system.recipes:
        assert any(paper in METHODS[name].paper for paper in system.paper.split(", "))
