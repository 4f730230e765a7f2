"""Names in a recipe find their files, and nothing else."""

import importlib
import pkgutil

import pytest

from specc.recipes import METHODS
from specc.runtime import acceptance, drafters
from specc.runtime.errors import RecipeError
from specc.runtime.recipe import load_acceptance, load_drafter

DRAFTERS = {m.name for m in pkgutil.iter_modules(drafters.__path__)} - {"tree_grower"}


@pytest.mark.parametrize("module", sorted(DRAFTERS))
def test_a_drafter_is_found_by_the_name_of_its_file(module):
    drafter = load_drafter(module.replace("_", "-"))
    assert drafter.__module__ == f"{drafters.__name__}.{module}"
    assert callable(drafter.propose) and callable(drafter.observe)


@pytest.mark.parametrize("module", [m.name for m in pkgutil.iter_modules(acceptance.__path__)])
def test_a_rule_is_found_by_the_name_of_its_file(module):
    rule = load_acceptance(module)
    assert rule.__module__ == f"{acceptance.__name__}.{module}" and rule.__name__ == module


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_the_table_names_what_there_is(method):
    assert load_drafter(method.drafter) and load_acceptance(method.acceptance)


@pytest.mark.parametrize("load", [load_drafter, load_acceptance])
@pytest.mark.parametrize("name", ["", "../plain", "a/b", "os.path", ".plain", "__init__", "Match", "match\n", "7", "é"])
def test_what_is_no_name_is_refused_before_anything_is_imported(load, name, monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"imported {name}"))
    with pytest.raises(RecipeError) as e:
        load(name)
    assert repr(name) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("load", [load_drafter, load_acceptance])
def test_a_name_that_is_not_there_is_named(load):
    with pytest.raises(RecipeError, match="'telepathy'"):
        load("telepathy")


def test_a_module_that_a_drafter_misses_is_not_taken_for_the_drafter(monkeypatch):
    load = importlib.import_module

    def missing(name):
        if name.endswith(".plain"):
            raise ModuleNotFoundError("No module named 'scipy'", name="scipy")
        return load(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="scipy"):
        load_drafter("plain")
