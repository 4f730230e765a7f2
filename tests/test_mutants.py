"""The mutation tests' own parts, and their list of equal mutants. `python tests/mutants.py` runs the mutants."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.util import module_from_spec
from types import SimpleNamespace
from typing import Any

import pytest
from mutants import LIST, ROOT, ModelsLast, Mutant, MutatedSource, annotation_spans, changed_lines, mutants

LISTED = tomllib.loads(LIST.read_text(encoding="utf-8"))


def test_modules_and_tests_of_the_list_exist() -> None:
    for module, tests in LISTED["tests"].items():
        assert all((ROOT / path).is_file() for path in (module, *tests))


@pytest.mark.parametrize("entry", LISTED["equal"], ids=lambda e: f"{e['module']}: {e['mutant']}")
def test_an_equal_mutant_is_of_a_line_that_exists_and_has_a_reason(entry: dict[str, str]) -> None:
    lines = [line.strip() for line in (ROOT / entry["module"]).read_text(encoding="utf-8").splitlines()]
    assert entry["module"] in LISTED["tests"]
    assert entry["line"] in " ".join(lines) and entry["line"] != entry["mutant"]
    assert entry["reason"]


def test_annotations_are_found_in_arguments_results_and_assignments() -> None:
    source = "def f(a: int | None, *b: int) -> str:\n    c: float = 1 + 2\n"
    texts = [source.splitlines()[a[0] - 1][a[1] : b[1]] for a, b in annotation_spans(source)]
    assert sorted(texts) == ["float", "int", "int | None", "str"]


def test_the_lines_that_differ_are_told_apart() -> None:
    assert changed_lines("a = 1\n    b = 2\n", "a = 1\n    b = 3\n") == ("b = 2", "b = 3")
    assert changed_lines("@cache\ndef f(): ...\n", "def f(): ...\n") == ("@cache", "")


def test_one_module_gets_the_mutated_source() -> None:
    loader = MutatedSource(Mutant("runtime/tree.py", "", "", "slots = 7"))
    assert loader.find_spec("specc.runtime.block") is None
    spec = loader.find_spec("specc.runtime.tree")
    assert spec is not None and spec.submodule_search_locations is None
    module = module_from_spec(spec)
    loader.exec_module(module)
    assert module.slots == 7


def test_a_package_keeps_its_modules() -> None:
    spec = MutatedSource(Mutant("runtime/acceptance/__init__.py", "", "", "")).find_spec("specc.runtime.acceptance")
    assert spec is not None and spec.submodule_search_locations == [str(ROOT / "runtime/acceptance")]


def test_mutants_differ_from_the_source_outside_of_annotations() -> None:
    pytest.importorskip("cosmic_ray")
    module = "runtime/acceptance/speculative.py"
    source = (ROOT / module).read_text(encoding="utf-8")
    changed = [mutant for mutant in mutants(module) if mutant.source != source]
    assert {("for slot in range(last):", "for slot in []:")} <= {(m.line, m.mutant) for m in changed}
    assert len({m.source for m in changed}) == len(changed) > 20


def item(function: Any, **params: str) -> Any:
    """Make what pytest collects for a test, as far as ModelsLast reads it."""
    return SimpleNamespace(function=function, callspec=SimpleNamespace(params=params))


def test_tests_of_whole_models_run_last_or_not_at_all() -> None:
    def of_a_model() -> Any:
        return prepared("llama")  # type: ignore[name-defined]  # noqa: F821

    by_family, by_name, small = item(item, family="llama"), item(of_a_model), item(item, kind="Layer")
    items = [by_family, by_name, small]
    ModelsLast(small=False).pytest_collection_modifyitems(items)
    assert items == [small, by_family, by_name]
    ModelsLast(small=True).pytest_collection_modifyitems(items)
    assert items == [small]


@pytest.mark.slow
def test_a_module_whose_mutants_are_all_noticed_passes() -> None:
    pytest.importorskip("cosmic_ray")
    command = [sys.executable, "tests/mutants.py", "runtime/acceptance/__init__.py"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "(100.0%), 0 equal" in result.stdout
