"""Values written on the command line: recipes' parameters, tree literals, lists of layers."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Sequence
from typing import Any

from specc.recipes import method
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


def settings(given: Sequence[str], **everywhere: Any) -> dict[str, dict[str, Any]]:
    """Parameters by recipe from RECIPE.PARAMETER=VALUE, and those for every recipe, where they are not None, under "".

    Raises RecipeError.
    """
    found = {"": {name: value for name, value in everywhere.items() if value is not None}}
    for setting in given:
        left, equals, value = setting.partition("=")
        recipe, dot, name = left.strip().partition(".")
        if not (equals and dot):
            raise RecipeError(f"--set {setting!r} is not RECIPE.PARAMETER=VALUE; see: specc recipes")
        found.setdefault(recipe, {})[name] = literal(f"--set {left}", value)
        method(recipe).settle(found[recipe])
    return found


def literal(option: str, text: str) -> Any:
    """The value of a Python literal. Raises RecipeError."""
    try:
        return literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        remedy = 'write a number, True, None, "text" or a list'
        raise RecipeError(f"{option}: {text!r} is no Python literal; {remedy}") from None


def tree(text: str | None) -> Any:
    """A list of paths. Raises TreeError for what is not a tree."""
    if text is None:
        return None
    paths = literal("--tree", text)
    Tree.from_paths(paths)
    return paths


def layers(option: str, text: str | None) -> list[int] | None:
    """Numbers with commas between. Raises RecipeError."""
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError:
        raise RecipeError(f"{option} {text!r} is no list of layers; write their numbers with commas: 3,4") from None
