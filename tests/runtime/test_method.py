"""Names in a recipe find their files, and nothing else; a drafter gets what its rule needs."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from specc.recipes import METHODS, Method
from specc.runtime import acceptance, drafters
from specc.runtime.acceptance.match import match
from specc.runtime.drafters import Drafter
from specc.runtime.errors import RecipeError
from specc.runtime.method import load_acceptance, load_drafter, load_method
from specc.runtime.recipe import Recipe

Load = Callable[[str], Any]
SAMPLES = Recipe(name="b", drafter="layer-skip", verify=())
COPIES = Recipe(name="a", drafter="prompt-lookup", verify=())


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(drafters.__path__)])
def test_a_drafter_is_found_by_the_name_of_its_file(module: str) -> None:
    drafter: Any = load_drafter(module.replace("_", "-"))
    assert drafter.__module__ == f"{drafters.__name__}.{module}" and issubclass(drafter, Drafter)


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(acceptance.__path__)])
def test_a_rule_is_found_by_the_name_of_its_file(module: str) -> None:
    rule = load_acceptance(module)
    assert rule.__module__ == f"{acceptance.__name__}.{module}" and rule.__name__ == module


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_table_of_methods_names_files_that_exist(method: Method) -> None:
    load_drafter(method.drafter)
    load_acceptance(method.acceptance)


@pytest.mark.parametrize("load", [load_drafter, load_acceptance])
@pytest.mark.parametrize("name", ["", "../plain", "a/b", "os.path", ".plain", "__init__", "Match", "match\n", "7", "é"])
def test_what_cannot_name_a_file_is_refused_before_anything_is_imported(
    load: Load, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(RecipeError) as e:
        load(name)
    assert repr(name) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("load", [load_drafter, load_acceptance])
def test_a_name_that_does_not_exist_is_named(load: Load) -> None:
    with pytest.raises(RecipeError, match="'telepathy'"):
        load("telepathy")


def test_a_module_that_a_drafter_misses_is_not_taken_for_the_drafter(monkeypatch: pytest.MonkeyPatch) -> None:
    load = importlib.import_module

    def missing(name: str) -> ModuleType:
        if name.endswith(".plain"):
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="scipy"):
        load_drafter("plain")


def test_a_method_takes_the_recipes_rule_or_another() -> None:
    assert load_method(COPIES).accept is match
    assert load_method(COPIES, "match").accept is match
    assert load_method(SAMPLES, "speculative").accept is load_acceptance("speculative")
    assert load_method(COPIES, match).key == ("a", False)
    assert load_method(SAMPLES, "speculative").key == ("b", True)


def test_a_rule_that_needs_draft_probs_needs_a_drafter_that_samples() -> None:
    with pytest.raises(RecipeError) as e:
        load_method(COPIES, "speculative")
    assert str(e.value) == (
        "acceptance 'speculative' needs a drafter that samples, and the drafter of recipe a does not; use match"
    )


def test_a_function_that_is_not_marked_as_a_rule_is_refused() -> None:
    unmarked: Any = lambda draft, verified: None  # noqa: E731
    with pytest.raises(RecipeError, match="is not an acceptance rule; mark it with specc"):
        load_method(COPIES, unmarked)


def test_a_drafter_gets_its_engines_and_parameters_and_samples_for_a_rule_that_asks_for_it() -> None:
    engine: Any = object()
    recipe = Recipe(name="c", drafter="layer-skip", verify=(), parameters={"num_speculative_tokens": 9})
    for rule, sample in (("match", False), ("speculative", True)):
        drafter: Any = load_method(recipe, rule).make_drafter({"draft": engine})
        assert (drafter.engine, drafter.count, drafter.sample) == (engine, 9, sample)
