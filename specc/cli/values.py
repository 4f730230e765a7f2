"""Parse values of the command line: parameters of recipes, tree literals, lists of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from specc.recipes import Method, method
from specc.recipes.literals import check_digits, read_literal, shorten
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


def parse_settings(
    settings: Sequence[str], own: Mapping[str, Method] | None = None, **for_all: Any
) -> dict[str, dict[str, Any]]:
    """Parse the values of --set.

    Args:
        settings: texts of the form RECIPE.PARAMETER=VALUE.
        own: the recipes of the user's own files, by name.
        for_all: parameters for every recipe that has them. Those that are None are left out.

    Returns:
        The parameters by recipe; those for every recipe under the empty name.

    Raises:
        RecipeError: a text has another form, or names a recipe or parameter that does not exist.
    """
    parameters = {"": {name: value for name, value in for_all.items() if value is not None}}
    for setting in settings:
        left, equals, value = setting.partition("=")
        recipe, dot, name = left.strip().partition(".")
        if not (equals and dot):
            raise RecipeError(f"--set {setting!r} is not RECIPE.PARAMETER=VALUE; see: specc recipes")
        parameters.setdefault(recipe, {})[name] = parse_literal(f"--set {left}", value)
        ((own or {}).get(recipe) or method(recipe)).settle(parameters[recipe])
    return parameters


def parse_literal(option: str, text: str) -> Any:
    """Parse a Python literal.

    Args:
        option: the name of the option, for the error message.
        text: the text of the literal.

    Raises:
        RecipeError: the text is not a literal, or it has a number of too many digits.
    """
    return read_literal(option, text, 'write a number, True, None, "text" or a list')


def parse_tree(text: str | None) -> Any:
    """Parse a tree that is written as a list of paths.

    Returns:
        The list, or None if there is no text.

    Raises:
        RecipeError: the text is not a literal.
        TreeError: the literal is not a tree.
    """
    if text is None:
        return None
    paths = parse_literal("--tree", text)
    Tree.from_paths(paths)
    return paths


def parse_layers(option: str, text: str | None) -> list[int] | None:
    """Parse numbers of layers with commas between them.

    Args:
        option: the name of the option, for the error message.
        text: the text, such as `3,4`.

    Returns:
        The numbers, or None if there is no text.

    Raises:
        RecipeError: a part is not a whole number.
    """
    if text is None:
        return None
    try:
        layers = [int(part) for part in text.split(",")]
    except ValueError:
        remedy = "write their numbers with commas: 3,4"
        raise RecipeError(f"{option} {shorten(text)!r} is not a list of layers; {remedy}") from None
    check_digits(option, layers)
    return layers
