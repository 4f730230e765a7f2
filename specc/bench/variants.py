"""Recipes with other values of a parameter, to measure what it changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from specc.recipes.blocks import tree_of
from specc.recipes.literals import read_literal, shorten
from specc.runtime.block import Block
from specc.runtime.bundle import Bundle
from specc.runtime.engine import Engine
from specc.runtime.errors import RecipeError, TreeError, nearest
from specc.runtime.manifest import Manifest
from specc.runtime.method import load_acceptance, load_method
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree

COUNTS = ("num_speculative_tokens", "prompt_lookup_num_tokens")  # of the drafted tokens, at most
TREE = "tree"  # a list of paths where a user writes it, and parents in a bundle
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
        TreeError: a value of `tree` is not a list of paths.
    """
    variants = {recipe.name: recipe for setting in settings for recipe in _variants(manifest, setting)}
    return replace(manifest, recipes=(*manifest.recipes, *variants.values())), list(variants)


@dataclass(frozen=True)
class UnloadedEngine:
    """An engine that is not loaded and cannot run. It has what constructors of drafters read: a name and a block.

    Attributes:
        name: the engine's name in the manifest.
        block: what it would run.
    """

    name: str
    block: Block

    @property
    def slots(self) -> int:
        """How many slots the block runs, N."""
        return self.block.slots


def check_parameters(bundle: Bundle, recipe: Recipe) -> None:
    """Check the parameters of a recipe's drafter and of its rule, without its engines.

    Args:
        bundle: the bundle that has the recipe's engines and files.
        recipe: the recipe.

    Raises:
        RecipeError: a value is out of range, or drafts would be longer than the widest engine that verifies them.
    """
    specs = {role: bundle.engine(name) for role, name in recipe.engines.items()}
    engines = {role: UnloadedEngine(spec.name, spec.block) for role, spec in specs.items()}
    load_method(recipe).make_drafter(cast(Mapping[str, Engine], engines), bundle.file)
    blocks = [bundle.engine(name).block for name in recipe.verify]
    if TREE in recipe.parameters and not any(b.fits(Tree(tuple(recipe.parameters[TREE]))) for b in blocks):
        raise RecipeError(
            f"recipe {recipe.name}: no engine of the bundle verifies this tree; give a part of the tree that the "
            "bundle has, or compile again with --set"
        )
    most = max(block.slots for block in blocks) - 1
    for name in COUNTS:
        if recipe.parameters.get(name, 0) > most:
            raise RecipeError(
                f"recipe {recipe.name}: {name} is {recipe.parameters[name]}, and the engines of the bundle verify "
                f"{most} drafted tokens; give {most} at most, or compile again with a larger {name}"
            )


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
    if parameter == TREE:
        value = _parents(recipe, value)
    return replace(named, parameters={**recipe.parameters, parameter: value})


def _parents(recipe: Recipe, paths: Any) -> tuple[int, ...]:
    """Return the parents of a tree that a user gives as a list of paths. Raises TreeError, which names the recipe."""
    try:
        return tree_of(paths).parents
    except TreeError as e:
        raise TreeError(f"recipe {recipe.name}: {e}") from e


def _values(setting: str, text: str) -> list[Any]:
    """Return the values of a setting. Raises RecipeError if they are not literals, or if there is none."""
    remedy = "write a list of numbers: 0,2,5"
    values = list(read_literal(f"--vary {shorten(setting)!r}", f"[{text}]", remedy))
    if not values:
        raise RecipeError(f"--vary {shorten(setting)!r} has no value; {remedy}")
    return values
