"""What the pages name exists: files, commands and their options, make targets, extras, variables, Python names."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from pages import ROOT, all_pages, commands, inline, links, read
from shell import specc

FILE = re.compile(r"[\w./-]+/[\w.-]+\.\w+|[\w./-]+/|[\w-]+\.(?:md|py|toml|yml)")
PLACEHOLDER = re.compile(r"\b[A-Z]{4,}\b")  # NAME in runtime/drafters/NAME.py
ELSEWHERE = {"textwrap.py", "repetition.py"}  # a file of Python's library, and one of an example


def label(page: Path) -> str:
    """Return a page's name for a test's title."""
    return page.relative_to(ROOT).as_posix()


@cache
def help_of(*verb: str) -> str:
    """Return the help text of `specc` or of a verb, such as `cache list`; nothing if there is no such verb."""
    result = specc(*verb, "--help")
    return result.out if result.status == 0 else ""


@cache
def verbs() -> tuple[str, ...]:
    """Return the verbs that `specc --help` lists."""
    listed = help_of().partition("Commands:")[2].partition("Examples:")[0]
    return tuple(re.findall(r"^  (\w+)", listed, re.M))


def options(text: str) -> set[str]:
    """Return the long options in a text."""
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text))


def missing_files(text: str) -> list[str]:
    """Return the paths in backticks that the repository does not have."""
    paths = [span for span in inline(text) if FILE.fullmatch(span) and not PLACEHOLDER.search(span)]
    written = [p for p in paths if p not in ELSEWHERE and not p.startswith("build/")]
    return [p for p in written if not (ROOT / p).exists()]


def wrong_commands(text: str) -> list[str]:
    """Return what is wrong with the commands of a page: a verb, an option, a target, an extra or a script."""
    checks = {"specc": wrong_specc, "make": wrong_make, "pip": wrong_pip, "python": wrong_python}
    return [
        f"{' '.join((first, *rest))}: {reason}"
        for first, *rest in commands(text)
        if first in checks
        for reason in checks[first](rest)
    ]


def wrong_specc(words: list[str]) -> list[str]:
    """Return the verb or the options that `specc` does not have. A word in capitals stands for any verb."""
    if not re.fullmatch(r"[a-z]+", words[0]):
        return []
    if words[0] not in verbs():
        return ["no verb"]
    verb = words[:2] if "Commands:" in help_of(words[0]) else words[:1]
    return [f"no option {o}" for o in sorted(options(" ".join(words)) - options(help_of(*verb)))]


def wrong_make(words: list[str]) -> list[str]:
    """Return the targets that the Makefile does not have."""
    targets = re.findall(r"^([a-z][a-z -]*):", read(ROOT / "Makefile"), re.M)
    return [f"no target {w}" for w in words if "=" not in w and w not in " ".join(targets).split()]


def wrong_pip(words: list[str]) -> list[str]:
    """Return the extras of specc that `pyproject.toml` does not have."""
    extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
    named = [e for w in words for group in re.findall(r"^(?:\.|specc-compiler)\[(.+)\]$", w) for e in group.split(",")]
    return [f"no extra {e}" for e in named if e not in extras]


def wrong_python(words: list[str]) -> list[str]:
    """Return the script if it does not exist."""
    return ["no file"] if words[0].endswith(".py") and not (ROOT / words[0]).is_file() else []


def unknown_options(text: str) -> list[str]:
    """Return the options in backticks that no verb has."""
    names = options("".join(help_of(verb) for verb in ("", *verbs())))
    named = {o for span in inline(text) if span.startswith("--") for o in options(span)}
    return sorted(named - names)


@cache
def sources() -> str:
    """Return the text of all Python files, and of the modules of JavaScript."""
    folders = ("specc", "passes", "runtime")
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return "\n".join(map(read, [*files, *sorted((ROOT / "runtimes").glob("*/*.js"))]))


def unknown_variables(text: str) -> list[str]:
    """Return the environment variables in backticks that no file reads."""
    return [v for span in inline(text) for v in re.findall(r"\bSPECC_\w+", span) if v not in sources()]


def file_of(parts: list[str]) -> Path | None:
    """Return the file of a module of specc, or None."""
    folder = {"passes": ROOT / "passes", "runtime": ROOT / "runtime"}.get(parts[1] if parts[1:] else "")
    path = folder.joinpath(*parts[2:]) if folder else ROOT.joinpath(*parts)
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()), None)


def defined(dotted: str) -> bool:
    """Say whether a dotted name is a module of specc, or a name or a member in one."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        file = file_of(parts[:count])
        if file is not None:
            return has_member(ast.parse(read(file)), parts[count:])
    return False


def has_member(scope: ast.AST, names: list[str]) -> bool:
    """Say whether a module or class binds the first name, that one the second, and so on."""
    if not names:
        return True
    return any(has_member(node, names[1:]) for node in ast.iter_child_nodes(scope) if names[0] in bound(node))


def bound(node: ast.AST) -> set[str]:
    """Return the names that a statement binds."""
    match node:
        case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {t.id for t in targets if isinstance(t, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {a.asname or a.name for a in names}
    return set()


def undefined_names(text: str) -> list[str]:
    """Return the dotted names of specc in backticks and in `:::` lines that no file defines."""
    dotted = [*inline(text), *re.findall(r"^::: (\S+)", text, re.M)]
    names = [n for span in dotted for n in re.findall(r"^(?:specc)(?:\.[A-Za-z_]\w*)+$", span)]
    return [n for n in names if not n.endswith(".specc") and not defined(n)]


@cache
def all_tests() -> set[str]:
    """Return the names of all test functions."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return {name for file in files for name in re.findall(r"^def (test_\w+)", read(file), re.M)}


def missing_tests(text: str) -> list[str]:
    """Return the tests in backticks that do not exist."""
    return [span for span in inline(text) if re.fullmatch(r"test_\w+", span) and span not in all_tests()]


CHECKS = (missing_tests, missing_files, wrong_commands, unknown_options, unknown_variables, undefined_names)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("page", all_pages(), ids=label)
def test_what_a_page_names_exists(page: Path, check: Callable[[str], list[str]]) -> None:
    assert check(read(page)) == []


@pytest.mark.parametrize("page", [p for p in all_pages() if not label(p).startswith("docs/")], ids=label)
def test_links_outside_of_the_site_lead_somewhere(page: Path) -> None:
    """`mkdocs build --strict` checks the links between the pages of docs/."""
    targets = [t.partition("#")[0] for t in links(read(page)) if "://" not in t]
    assert [t for t in targets if t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize(
    ("check", "text", "reported"),
    [
        (missing_files, "`runtime/nothing.py`", ["runtime/nothing.py"]),
        (missing_files, "`passes/nowhere/`", ["passes/nowhere/"]),
        (wrong_commands, "```sh\nspecc bake m.specc\n```", ["specc bake m.specc: no verb"]),
        (wrong_commands, "`specc show m.specc --colour`", ["specc show m.specc --colour: no option --colour"]),
        (wrong_commands, "```sh\nspecc test a \\\n    --fast\n```", ["specc test a --fast: no option --fast"]),
        (wrong_commands, "`make tea`", ["make tea: no target tea"]),
        (wrong_commands, "`pip install -e '.[cpu,tpu]'`", ["pip install -e .[cpu,tpu]: no extra tpu"]),
        (wrong_commands, "`python benchmarks/no.py`", ["python benchmarks/no.py: no file"]),
        (unknown_options, "`--colour`", ["--colour"]),
        (unknown_variables, "`SPECC_TEA=off`", ["SPECC_TEA"]),
        (undefined_names, "`specc.runtime.tree.Bush`", ["specc.runtime.tree.Bush"]),
        (missing_tests, "`test_tea_is_hot`", ["test_tea_is_hot"]),
        (undefined_names, "::: specc.passes.make_tea", ["specc.passes.make_tea"]),
    ],
)
def test_a_wrong_name_is_reported(check: Callable[[str], list[str]], text: str, reported: list[str]) -> None:
    assert [r for r in check(text) if r in reported] == reported


def test_every_pass_has_a_place_in_the_reference() -> None:
    text = read(ROOT / "docs" / "api" / "passes.md")
    files = [f.stem for f in (ROOT / "passes").glob("*.py") if f.stem != "__init__"]
    assert [name for name in files if f"::: specc.passes.{name}\n" not in text] == []


def test_the_checks_see_the_names_of_the_readme() -> None:
    """The pages have names to check: a pattern that finds nothing would pass every page."""
    text = read(ROOT / "README.md")
    assert {line[0] for line in commands(text)} >= {"specc", "make", "pip", "python"}
    assert {"compile", "generate", "test", "bench", "tune"} <= set(verbs())
    assert defined("specc.runtime.tree.Tree.chain") and defined("specc.compiler.Options")
