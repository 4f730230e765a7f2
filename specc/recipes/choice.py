"""The choice of recipes to compile and of their values, checked without torch and before a model is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from specc.recipes import METHODS, Facts, Method, MethodBlocks, method
from specc.recipes.engines import any_facts, plan_for_any
from specc.recipes.entry import HeadFacts
from specc.runtime.block import Frontier
from specc.runtime.errors import RecipeError, TreeError

MARGIN = 128  # rows of a cache past the context: scratch for the slots of the widest block
Parameters = Mapping[str, Mapping[str, Any]]  # values by recipe and parameter; those under "" are for every recipe


def choose(
    names: Sequence[str], parameters: Parameters, options: set[str], heads: Collection[str] | None = ()
) -> list[Method]:
    """Return the methods to compile, plain decoding first.

    Args:
        names: recipes of the table, or recipe files. Empty means the usual ones.
        parameters: the user's values.
        options: what the compile has of what methods may need.
        heads: the architectures of the trained heads; None if they are not read yet.

    Raises:
        RecipeError: a recipe is unknown or lacks what it needs, or a parameter belongs to no chosen recipe.
    """
    usual = [m.name for m in METHODS.values() if m.by_default and not _missing(m, options, heads)]
    methods = _distinct([method(name) for name in dict.fromkeys(("plain", *(names or usual)))])
    for m in methods:
        if missing := _missing(m, options, heads):
            raise RecipeError(f"recipe {m.name} needs {missing}")
    for head in sorted(set(heads or ()) - {name for m in methods for name in (m.head, m.optional_head)}):
        recipes = [m.name for m in METHODS.values() if head in (m.head, m.optional_head)]
        raise RecipeError(f"no chosen recipe drafts by the head {head}; leave it out, or add --recipe {recipes[0]}")
    for name in parameters.keys() - {""}:
        if name not in {m.name for m in methods}:
            raise RecipeError(f"parameters for recipe {name!r}, which is not compiled; add --recipe {name}")
    for name in parameters.get("", {}):
        if not any(name in m.parameters for m in methods):
            users = [m.name for m in METHODS.values() if name in m.parameters and not _missing(m, options, heads)]
            more = f", or add a recipe that has it, such as --recipe {users[0]}" if users else ""
            option = f"--{name.replace('_', '-')}"
            raise RecipeError(f"no compiled recipe has a parameter {name!r}; leave out {option}{more}")
    return methods


def _distinct(methods: list[Method]) -> list[Method]:
    """Return methods whose names differ. Raises RecipeError for two recipe files that give one name."""
    names = [m.name for m in methods]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(f"two recipe files give the name {name!r}; write name = '…' into one of them")
    return methods


def available(**options: object) -> set[str]:
    """Return what a compile has of what methods may need: the names of the options that have a value."""
    return {name.replace("_", "-") for name, value in options.items() if value}


NEEDS = {
    "assistant-model": "a draft model",
    "untuned-model": "a small model as it was before its tuning",
    "corpus": "a corpus",
}


def _missing(m: Method, options: set[str], heads: Collection[str] | None) -> str:
    """Say what a method needs that a compile does not have; empty if it needs nothing more."""
    for need in m.needs:
        if need in NEEDS and need not in options:
            return f"{NEEDS[need]}; name one with --{need}"
    if m.head and heads is not None and m.head not in heads:
        return f"a trained head of architecture {m.head}; name its directory with --head"
    return ""


def values_of(m: Method, parameters: Parameters) -> dict[str, Any]:
    """Return a value of each parameter of a method: the user's, or the default."""
    for_all = {name: value for name, value in parameters.get("", {}).items() if name in m.parameters}
    return m.settle(for_all | dict(parameters.get(m.name, {})))


def plan(m: Method, values: Mapping[str, Any], facts: Facts) -> MethodBlocks:
    """Plan a method.

    Raises:
        RecipeError: a value is out of range, or the blocks have more slots than a cache has scratch rows. The message
            names the recipe, since several may have a parameter of that name.
    """
    try:
        blocks = m.plan(values, facts)
    except (RecipeError, TreeError) as e:
        raise RecipeError(f"recipe {m.name}: {e}") from e
    for block in blocks.all:
        rows = max(block.slots, block.topology.span if isinstance(block.topology, Frontier) else 0)
        if rows > MARGIN:
            guesses = facts.heads.get(m.head, HeadFacts()).guesses
            remedy = f", or a head that guesses fewer than {guesses}" if guesses else ""
            raise RecipeError(
                f"recipe {m.name} needs {rows} slots; {MARGIN} is the most: choose fewer tokens a draft{remedy}"
            )
    return blocks


def check_ranges(methods: Sequence[Method], parameters: Parameters) -> None:
    """Check all values, as far as they do not depend on the model.

    Raises:
        RecipeError: a value is out of range for any model.
    """
    for m in methods:
        plan_for_any(partial(plan, m, values_of(m, parameters)), any_facts(m))
