"""Mutation testing: change one operator, number or name at a time, and see whether the tests of the module notice.

    python tests/mutants.py                          # every module of tests/mutants.toml
    python tests/mutants.py runtime/tree.py ...      # these only
    python tests/mutants.py --sample 30              # at most 30 mutants of a module, chosen by a fixed seed
    python tests/mutants.py --small                  # without the tests of whole models: quicker, and no less strict

cosmic-ray makes the mutants. Each runs in a fork of this process, which has imported the slow libraries once, and no
file is changed: an import hook hands the mutated source to Python. tests/mutants.toml lists for each module its tests,
and the mutants that no test can notice, each with the reason. Tests of whole models run last, so that a mutant which a
small graph notices costs a second. With --small they do not run, so a mutant that only they notice counts as a
survivor. The exit status is 1 if another mutant survives, or if an entry of the list is stale.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import gc
import importlib.util
import os
import random
import resource
import signal
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests/mutants.toml"
# The opposite of a binary operator; the neighbour and the opposite of a comparison. One test would notice all others.
REPLACEMENTS = {
    "ReplaceBinaryOperator": {
        "Add": ["Sub"],
        "Sub": ["Add"],
        "Mul": ["Div"],
        "Div": ["Mul"],
        "FloorDiv": ["Mul"],
        "Mod": ["Mul"],
        "Pow": ["Mul"],
        "BitOr": ["BitAnd"],
        "BitAnd": ["BitOr"],
        "BitXor": ["BitOr"],
        "LShift": ["RShift"],
        "RShift": ["LShift"],
    },
    "ReplaceComparisonOperator": {
        "Lt": ["LtE", "GtE"],
        "LtE": ["Lt", "Gt"],
        "Gt": ["GtE", "LtE"],
        "GtE": ["Gt", "Lt"],
        "Eq": ["NotEq"],
        "NotEq": ["Eq"],
        "Is": ["IsNot"],
        "IsNot": ["Is"],
        "In": ["NotIn"],
        "NotIn": ["In"],
    },
}
SLOW_IMPORTS = ("hypothesis.stateful", "numpy", "pytest", "tokenizers")
# Where a test of the module has mark torch: what its files import, but for files of this project.
TORCH_IMPORTS = (
    "expecttest",
    "onnxruntime",
    "torch",
    "torch._dynamo",
    "transformers.models.auto.modeling_auto",
    "transformers.modeling_utils",
)
MODEL_GRAPHS = {"build", "captured", "prepared"}  # functions of tests/graphs.py and tests/blocks.py
NOTICED = (1, 2)  # pytest's exit statuses: a test failed, or a test file could not be imported.
MEMORY = 8 << 30  # Bytes of address space of a mutant.
SEED = 0  # of --sample
Position = tuple[int, int]


@dataclass(frozen=True)
class Mutant:
    """A module with one change."""

    module: str
    line: str  # The lines that changed, without indentation, as they were …
    mutant: str  # … and as they are.
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """What an entry of the list names."""
        return self.module, self.line, self.mutant


def mutants(module: str) -> Iterator[Mutant]:
    """Yield each mutant of a file, but for those of type annotations, which Python does not evaluate here."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.mutating import MutationVisitor
    from cosmic_ray.plugins import get_operator, operator_names

    source = (ROOT / module).read_text(encoding="utf-8")
    skipped = list(annotation_spans(source))
    for name in sorted(operator_names()):
        kind, *operators = name.split("/")[1].split("_")
        if kind in REPLACEMENTS and operators[1] not in REPLACEMENTS[kind][operators[0]]:
            continue
        if get_operator(name).arguments():
            continue
        operator = get_operator(name)()
        places = [p for node in ast_nodes(get_ast(source)) for p in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(places):
            if any(first <= start < last for first, last in skipped):
                continue
            mutated = MutationVisitor(occurrence, get_operator(name)()).walk(get_ast(source)).get_code()
            if mutated != source:
                yield Mutant(module, *changed_lines(source, mutated), mutated)


def annotation_spans(source: str) -> Iterator[tuple[Position, Position]]:
    """Yield where the type annotations of a file begin and end."""
    for node in ast.walk(ast.parse(source)):
        for child in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if isinstance(child, ast.expr):
                assert child.end_lineno is not None and child.end_col_offset is not None
                yield (child.lineno, child.col_offset), (child.end_lineno, child.end_col_offset)


def changed_lines(source: str, mutated: str) -> tuple[str, str]:
    """Return the lines that differ, each side joined and without indentation."""
    lines = list(difflib.ndiff(source.splitlines(), mutated.splitlines()))
    before, after = ([line[2:].strip() for line in lines if line.startswith(sign)] for sign in "-+")
    return " ".join(before), " ".join(after)


class MutatedSource(SourceFileLoader):
    """A loader, and the finder of itself, that gives one module another source."""

    def __init__(self, mutant: Mutant) -> None:
        parts = Path(mutant.module).with_suffix("").parts
        name = ".".join(parts if parts[0] == "specc" else ("specc", *parts)).removesuffix(".__init__")
        super().__init__(name, str(ROOT / mutant.module))
        self.source = mutant.source

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        folders = [str(Path(self.path).parent)] if self.path.endswith("__init__.py") else None
        return importlib.util.spec_from_file_location(
            fullname, self.path, loader=self, submodule_search_locations=folders
        )

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class ModelsLast:
    """A plug-in of pytest that runs the tests of whole models after all others, or not at all."""

    def __init__(self, small: bool) -> None:
        self.small = small

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(key=runs_model)
        if self.small:
            items[:] = [item for item in items if not runs_model(item)]


def runs_model(item: Any) -> bool:
    """Return whether a test has a parameter `family`, or asks for the graph of one."""
    has_family = hasattr(item, "callspec") and "family" in item.callspec.params
    return has_family or not MODEL_GRAPHS.isdisjoint(item.function.__code__.co_names)


def import_torch() -> None:
    """Import torch and export a graph, so that no mutant has to load what torch.export loads when it is first used."""
    for name in TORCH_IMPORTS:
        importlib.import_module(name)
    import torch

    module = torch.nn.Linear(2, 2)
    torch.export.export(module, (torch.zeros(1, 2),), strict=False).run_decompositions().module()


def run(tests: Sequence[str], mutant: Mutant | None, seconds: int, small: bool = False) -> tuple[bool, float]:
    """Run tests in a fork.

    Args:
        tests: the test files.
        mutant: the mutant to import; None imports the files as they are.
        seconds: processor time after which a mutant counts as noticed.
        small: whether to leave out the tests of whole models.

    Returns:
        Whether the tests passed, and the processor time that they took.

    Raises:
        RuntimeError: pytest did not run the tests.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if not child:
        os._exit(_run_in_child(tests, mutant, seconds, small))
    deadline = time.monotonic() + 30 * seconds
    while not (status := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    code = os.waitstatus_to_exitcode(status[1])
    if code > 0 and code not in NOTICED:
        raise RuntimeError(f"pytest exits with status {code} for {' '.join(tests)}")
    return code == 0, cpu_seconds


def _run_in_child(tests: Sequence[str], mutant: Mutant | None, seconds: int, small: bool) -> int:
    import pytest
    from hypothesis import Phase, settings

    # A failing example need not be shrunk.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile("mutants", derandomize=True, deadline=None, phases=phases)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    if mutant:
        sys.meta_path.insert(0, MutatedSource(mutant))
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants"]
    return int(pytest.main([*options, *tests], plugins=[ModelsLast(small)]))


def check(
    module: str,
    tests: Sequence[str],
    expected: dict[tuple[str, str, str], str],
    sample: int | None = None,
    small: bool = False,
) -> tuple[int, int, list[str]]:
    """Run the mutants of a module.

    Args:
        module: its path.
        tests: its test files.
        expected: by the key of a mutant, why no test can notice it. Entries that are met are taken out.
        sample: how many mutants to run at most; None runs all.
        small: whether to leave out the tests of whole models.

    Returns:
        How many mutants ran, how many were noticed, and a line for each unexpected survivor.
    """
    passed, seconds = run(tests, None, 600, small)
    if not passed:
        raise RuntimeError(f"{' '.join(tests)} fail without a mutant")
    total, noticed, survivors = 0, 0, []
    for mutant in sampled(list(mutants(module)), sample):
        total += 1
        if not run(tests, mutant, int(10 + 3 * seconds), small)[0]:
            noticed += 1
        elif mutant.key in expected:
            del expected[mutant.key]
        else:
            survivors.append(f"{module}\n  - {mutant.line}\n  + {mutant.mutant}")
    return total, noticed, survivors


def sampled(population: list[Mutant], count: int | None) -> list[Mutant]:
    """Return `count` mutants chosen by a fixed seed, in the order of the file, or all if there are no more."""
    if count is None or count >= len(population):
        return population
    choice = sorted(random.Random(SEED).sample(range(len(population)), count))
    return [population[i] for i in choice]


def needs_torch(tests: Sequence[str]) -> bool:
    """Return whether a test file has the mark torch."""
    return any("mark.torch" in (ROOT / path).read_text(encoding="utf-8") for path in tests)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*")
    parser.add_argument("--sample", type=int, metavar="N", help="run at most N mutants of a module")
    parser.add_argument("--small", action="store_true", help="leave out the tests of whole models")
    arguments = parser.parse_args()
    listed = tomllib.loads(LIST.read_text(encoding="utf-8"))
    os.chdir(ROOT)
    # Python has put tests/ on the path, where a folder is called specc. conftest.py adds it again, after it has specc.
    sys.path.remove(str(Path(__file__).parent))
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    modules = arguments.modules or list(listed["tests"])
    if any(needs_torch(listed["tests"][module]) for module in modules):
        import_torch()
    gc.freeze()  # pytest collects garbage in every fork, which need not look through the libraries.
    failed = False
    for module in modules:
        expected = {(module, e["line"], e["mutant"]): e["reason"] for e in listed["equal"] if e["module"] == module}
        tests = listed["tests"][module]
        total, noticed, survivors = check(module, tests, expected, arguments.sample, arguments.small)
        equal = total - noticed - len(survivors)
        print(f"{module}: {total} mutants, {noticed} noticed ({noticed / total:.1%}), {equal} equal", flush=True)
        for line in survivors:
            print(f"survives: {line}", flush=True)
        stale = [] if arguments.sample else expected
        for key in stale:
            print(f"stale entry of {LIST.name}: {key}", flush=True)
        failed = failed or bool(survivors or stale)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
