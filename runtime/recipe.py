"""A compiled recipe: which engines, what fills the slots, which slots to keep."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import RecipeError


@dataclass(frozen=True)
class Recipe:
    """One method as this bundle holds it.

    engines: the drafter's engines by the name of its argument, such as {"draft": "draft.layer-skip"}.
    verify: the target's engines that this recipe may run, narrowest first.
    parameters: the drafter's other arguments.
    """

    name: str
    drafter: str
    verify: tuple[str, ...]
    acceptance: str = "match"
    lossless: bool = True
    engines: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)


def load_method(recipe: Recipe, acceptance: Any = None) -> tuple[Any, Any, bool]:
    """A recipe's drafter, its rule or the one that is given, and whether the drafter must sample for it.

    Raises RecipeError where it must and cannot.
    """
    rule, drafter = acceptance or recipe.acceptance, load_drafter(recipe.drafter)
    accept = load_acceptance(rule) if isinstance(rule, str) else rule
    sample = getattr(accept, "needs_draft_probs", False)
    if sample and "sample" not in inspect.signature(drafter).parameters:
        named = f"acceptance {accept.__name__!r}"
        raise RecipeError(f"{named} needs a drafter that samples; {recipe.name} does not: use match")
    return drafter, accept, sample


def load_drafter(name: str) -> Any:
    """The class in `drafters/` that `name` says: prompt-lookup is PromptLookup in prompt_lookup.py."""
    return _find("drafters", name, "".join(part.capitalize() for part in re.split("[-_]", name)))


def load_acceptance(name: str) -> Any:
    """The function in `acceptance/` that `name` says."""
    return _find("acceptance", name, name)


def _find(folder: str, name: str, attribute: str) -> Any:
    file = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", file):
        raise RecipeError(f"{name!r} is no name for a file in {folder}/")
    package = f"{__package__}.{folder}"
    try:
        return getattr(importlib.import_module(f"{package}.{file}"), attribute)
    except ModuleNotFoundError as e:
        if e.name != f"{package}.{file}":
            raise
        there = sorted(m.name for m in pkgutil.iter_modules(importlib.import_module(package).__path__))
        raise RecipeError(f"this runtime has no {name!r} in {folder}/, only {', '.join(there)}; upgrade specc?") from e
