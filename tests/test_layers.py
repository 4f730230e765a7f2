"""The law of the layers, read from the syntax trees: arrows never point up, and no part knows a method by name."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import pytest

from specc.recipes import METHODS

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "onnx", "onnxscript", "onnx_ir", "safetensors")
HEAVY_FILES = (
    *("huggingface/*.py", "compiler/*.py", "heads/*.py", "training/*.py"),
    *("exactness/reference.py", "backends/*.py", "bench/peers/*.py"),
)
FAMILIES = re.compile(
    "bloom|codegen|cohere|deepseek|diffllama|doge|ernie|exaone|falcon|gemma|glm|gpt|gptj|granite|helium|internlm|llama|"
    "mistral|mixtral|mpt|nemotron|neox|olmo|opt|persimmon|phi|pythia|qwen|smollm|stablelm|starcoder"
)


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def name(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


@cache
def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def nodes(file: Path) -> list[ast.AST]:
    """Return all nodes of a file's syntax tree."""
    return list(ast.walk(parse(file)))


def package(file: Path) -> list[str]:
    """The package that a file's relative imports start from."""
    parts = list(file.relative_to(ROOT).parent.parts)
    return parts if parts[0] == "specc" else ["specc", *parts]


def imports(file: Path, tree: ast.AST | None = None) -> Iterator[str]:
    """The full name of each module that a file imports, wherever it does."""
    for node in nodes(file) if tree is None else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package(file)[: 1 - node.level or None] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "specc" else [module]


def under(module: str, *roots: str) -> bool:
    return any(module == root or module.startswith(f"{root}.") for root in roots)


def at_import(file: Path) -> Iterator[str]:
    """What a file imports as soon as it is imported: not in functions, not for type checkers."""
    for node in parse(file).body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)) and "TYPE_CHECKING" not in ast.unparse(node):
            yield from imports(file, node)


@pytest.mark.parametrize("file", sources("runtime"), ids=name)
def test_the_runtime_knows_arrays_and_engines_and_nothing_above_it(file: Path) -> None:
    allowed = {"numpy", *sys.stdlib_module_names}
    if file.parent.name == "engines":
        allowed |= {"onnxruntime", "google.protobuf"}
    if name(file) == "runtime/engines/inductor.py":
        allowed |= {"torch"}
        assert not any(under(m, "torch") for m in at_import(file))
    if name(file) in ("runtime/engines/tensorrt.py", "runtime/engines/tensorrt_library.py"):
        allowed |= {"tensorrt_rtx"}  # its types
        assert not any(under(m, "tensorrt_rtx") for m in at_import(file))
    if file.name in ("text.py", "detokenizer.py", "tokenizer_time.py"):
        allowed |= {"tokenizers"}
    if file.name == "chat.py":
        allowed |= {"jinja2"}
        assert not any(
            under(m, "specc.runtime.chat_sandbox", "specc.runtime.chat_meter", "jinja2") for m in at_import(file)
        )
    if name(file) == "runtime/processors/grammar.py":
        allowed |= {"llguidance"}
        assert not any(under(m, "llguidance") for m in at_import(file))
    if file.name in ("chat_sandbox.py", "chat_meter.py"):
        allowed |= {"jinja2"}
    assert [m for m in imports(file) if not under(m, "specc.runtime", *allowed)] == []


@pytest.mark.parametrize("file", sources("runtime"), ids=name)
def test_the_runtime_imports_itself_relatively(file: Path) -> None:
    """So that it runs under any name, and alone."""
    absolute = [n for n in nodes(file) if isinstance(n, ast.ImportFrom) and not n.level]
    assert [n.module for n in absolute if under(str(n.module), "specc", "runtime")] == []


@pytest.mark.parametrize("file", sources("passes"), ids=name)
def test_passes_know_torch_and_the_runtimes_vocabulary(file: Path) -> None:
    allowed = ("torch", "specc.runtime", "specc.passes", *sys.stdlib_module_names)
    assert [m for m in imports(file) if not under(m, *allowed)] == []


@pytest.mark.parametrize("file", sources("specc"), ids=name)
def test_torch_is_where_models_are_and_nowhere_else(file: Path) -> None:
    if not any(fnmatch(name(file), f"specc/{pattern}") for pattern in HEAVY_FILES):
        assert [m for m in imports(file) if under(m, *HEAVY)] == []
        heavy = (
            *("specc.passes", "specc.huggingface", "specc.compiler", "specc.exactness.reference", "specc.backends"),
            *("specc.heads", "specc.training"),
        )
        assert [m for m in at_import(file) if under(m, *heavy)] == []


@cache
def words(file: Path) -> set[str]:
    """Identifiers, parts of imported modules' names, and strings."""
    parts: set[str] = set()
    for node in nodes(file):
        for _, value in ast.iter_fields(node):
            parts.update(part for part in (value if isinstance(value, list) else [value]) if isinstance(part, str))
    return parts | {word for part in parts for word in part.split(".")}


def spellings(method: str) -> set[str]:
    parts = method.split("-")
    return {method, "_".join(parts), "".join(p.capitalize() for p in parts), "_".join(parts).upper()}


NAMELESS = [
    "runtime/session.py",
    "runtime/loop.py",
    "runtime/decoder.py",
    "runtime/together.py",
    "runtime/prices.py",
    "runtime/model.py",
    "runtime/scheduler.py",
    "runtime/engine.py",
    *(name(f) for folder in ("specc/compiler", "specc/cli") for f in sources(folder)),
]
NAMELESS += [name(f) for folder in ("runtime/engines", "specc/backends") for f in sources(folder)]


@pytest.mark.parametrize("file", NAMELESS)
def test_no_method_is_known_by_name(file: str) -> None:
    """The loop, engines, backends, compiler and command line dispatch on what a thing needs."""
    methods = {s for m in METHODS if m != "plain" for s in spellings(m)}
    assert sorted(methods & words(ROOT / file)) == []


@pytest.mark.parametrize("file", sources("passes"), ids=name)
def test_passes_know_no_family_of_models(file: Path) -> None:
    """They find their place by what the graph says."""
    matches = {w.lower() for text in words(file) for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)}
    assert [w for w in matches if FAMILIES.fullmatch(w)] == []


def test_every_folder_is_a_package_that_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = [f.parent for folder in ("specc", "passes", "runtime") for f in sources(folder)]
    assert set(listed["packages"]) == {".".join(package(f / "any.py")) for f in folders}
    assert listed["package-dir"] == {"specc.passes": "passes", "specc.runtime": "runtime"}
    assert all((f / "__init__.py").exists() for f in folders)


BLOCKED = """
import sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {heavy!r}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Finder())
"""


def python(code: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run code in `directory` with the compiler's own requirements out of reach."""
    command = [sys.executable, "-c", BLOCKED.format(heavy=HEAVY) + code]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=60)


def modules(folder: str) -> list[str]:
    """What can be imported of a folder, the files that need a model left out."""
    files = [f for f in sources(folder) if not any(fnmatch(name(f), f"specc/{p}") for p in HEAVY_FILES)]
    return [".".join([*package(f), *([] if f.stem == "__init__" else [f.stem])]) for f in files]


@pytest.mark.process
def test_the_block_blocks(tmp_path: Path) -> None:
    """The control of the two tests below."""
    assert "torch is blocked" in python("import specc.compiler.capture", tmp_path).stderr


@pytest.mark.process
def test_all_but_the_compiler_is_imported_without_torch(tmp_path: Path) -> None:
    run = python(f"import {', '.join(modules('specc') + modules('runtime'))}", tmp_path)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.process
def test_the_runtime_alone_is_enough_to_run(tmp_path: Path) -> None:
    """Copied into an empty package."""
    shutil.copytree(ROOT / "runtime", tmp_path / "specc/runtime")
    (tmp_path / "specc/__init__.py").touch()
    code = f"import {', '.join(modules('runtime'))}; print(specc.runtime.session.__file__)"
    run = python(code, tmp_path)
    assert (run.returncode, run.stderr) == (0, "") and run.stdout.startswith(str(tmp_path))


@pytest.mark.process
def test_a_second_copy_under_another_name_is_refused() -> None:
    assert "import specc.runtime, not runtime" in python("import runtime", ROOT).stderr


# Our own invariants, which no input can break. `python -O` removes every assert, so none may guard input.
INVARIANTS = {
    "runtime/engines/tensorrt.py": "self.inputs['past_len'][0] == start",
    "runtime/sequence.py": "len(self.tokens) == len(self.cache.tokens) + 1",
}


def narrows_a_type(test: ast.expr) -> bool:
    """Whether an assertion only tells mypy what is known: `x is not None`, `isinstance(x, T)`, `callable(x)`, `x`."""
    if isinstance(test, ast.BoolOp):
        return all(map(narrows_a_type, test.values))
    if isinstance(test, ast.Compare):
        return all(isinstance(op, ast.IsNot) for op in test.ops)
    return isinstance(test, ast.Name | ast.Attribute) or (isinstance(test, ast.Call) and type_check(test))


def type_check(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in ("isinstance", "callable")


@pytest.mark.parametrize("file", [*sources("runtime"), *sources("specc")], ids=name)
def test_no_assert_guards_input(file: Path) -> None:
    tests = [node.test for node in nodes(file) if isinstance(node, ast.Assert)]
    others = {ast.unparse(test) for test in tests if not narrows_a_type(test)}
    assert others <= {INVARIANTS.get(name(file))}


def test_an_assert_about_a_value_is_noticed() -> None:
    tests = {
        text: ast.parse(text, mode="eval").body for text in ("x > 0", "x is not None", "isinstance(x, int)", "x == 1")
    }
    assert [text for text, test in tests.items() if not narrows_a_type(test)] == ["x > 0", "x == 1"]
