"""A recipe as data."""

from __future__ import annotations

from specc.runtime.recipe import Recipe


def test_a_recipe_names_each_of_its_engines_once() -> None:
    recipe = Recipe(name="a", drafter="b", verify=("one", "two"), engines={"draft": "two", "prefill": "three"})
    assert recipe.engine_names == ("one", "two", "three")
