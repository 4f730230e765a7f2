"""Recipes with other values of a parameter, to measure what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from specc.recipes.literals import read_literal, shorten
from specc.runtime.errors import RecipeError, nearest
from specc.runtime.manifest import Manifest
from specc.runtime.method import load_acceptance
from specc.runtime.recipe import Recipe

FORM = "RECIPE.PARAMETER=VALUE,VALUE"


def with_variants(manifest: Manifest, settings: Sequence[str]) -> tuple[Manifest, list[str]]:
    """Add a recipe for each value of each setting.

    Args:
        manifest: that of the bundle. The bundle itself stays as it is.
        settings: texts of the form `RECIPE.PARAMETER=VALUE,VALUE`.

    Returns:
        The manifest, and the names of the new recipes.

    Raises:
        RecipeError: a text has another form, or names a recipe or a parameter that does not exist.
    """
    variants = [recipe for setting in settings for recipe in _variants(manifest, setting)]
    return replace(manifest, recipes=(*manifest.recipes, *variants)), [recipe.name for recipe in variants]


def _variants(manifest: Manifest, setting: str) -> list[Recipe]:
    """Return the recipes of one setting."""
    left, equals, values = setting.partition("=")
    name, dot, parameter = left.strip().partition(".")
    if not (equals and dot):
        raise RecipeError(f"--vary {setting!r} is not {FORM}; for example bild.rollback_threshold=0,2,5")
    recipes = {recipe.name: recipe for recipe in manifest.recipes}
    if name not in recipes:
        raise RecipeError(f"the bundle has no recipe {name!r}; {nearest(name, recipes)}")
    recipe = recipes[name]
    rule = set(load_acceptance(recipe.acceptance).ranges)
    names = rule | set(recipe.parameters)
    if parameter not in names:
        raise RecipeError(f"recipe {name} has no parameter {parameter!r} to vary; {nearest(parameter, sorted(names))}")
    return [_with(recipe, parameter, value, of_rule=parameter in rule) for value in _values(setting, values)]


def _with(recipe: Recipe, parameter: str, value: Any, *, of_rule: bool) -> Recipe:
    """Return a recipe with another value of a parameter of its rule or of its drafter."""
    named = replace(recipe, name=f"{recipe.name} {parameter}={value}")
    if of_rule:
        return replace(named, rule_parameters={**recipe.rule_parameters, parameter: value})
    return replace(named, parameters={**recipe.parameters, parameter: value})


def _values(setting: str, text: str) -> list[Any]:
    """Return the values of a setting. Raises RecipeError if they are not literals."""
    return list(read_literal(f"--vary {shorten(setting)!r}", f"[{text}]", "write a list of numbers: 0,2,5"))
