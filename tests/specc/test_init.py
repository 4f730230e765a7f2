"""The package at the top level: its names, its two functions, and what it loads."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args, get_type_hints

import pytest

import specc
from specc.runtime.errors import SpeccError
from specc.runtime.extras import package

PLACES = (
    *("model", "output", "assistant_model", "untuned_model", "corpus", "adapter", "prompts", "text"),
    "dump_graphs",
)


class Place(os.PathLike[str]):
    """A path that is no `pathlib.Path`."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __fspath__(self) -> str:
        return self.text


@pytest.mark.torch
@pytest.mark.parametrize("path", [Path, Place, str], ids=lambda p: p.__name__)
def test_compile_takes_any_path_where_it_takes_a_path_as_text(
    path: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest holds the model's path, and the compiler compares paths as text."""
    from specc import compiler

    requests: list[Any] = []

    def keep(options: Any) -> Any:
        requests.append(options)
        return SimpleNamespace(bundle=1)

    monkeypatch.setattr(compiler, "compile_bundle", keep)
    several: dict[str, Any] = {"heads": [path("a"), path("b")], "recipes": ["plain", path("my.toml")]}
    specc.compile(**{name: path(f"some/{name}") for name in PLACES}, **several)
    assert {name: getattr(requests[0], name) for name in PLACES} == {name: f"some/{name}" for name in PLACES}
    assert requests[0].heads == ["a", "b"] and requests[0].recipes == ["plain", "my.toml"]
    specc.compile(path("m"), path("o"))
    assert requests[1].assistant_model is None and requests[1].corpus is None


@pytest.mark.torch
@pytest.mark.parametrize("value", [3, b"model", None])
def test_what_is_no_path_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(specc.PromptError, match=r"model is .*; give a path, as text or as a pathlib\.Path"):
        specc.compile(value, "out.specc")
    with pytest.raises(specc.PromptError, match=r"bundle is .*; give a path"):
        specc.load(value)


def test_load_takes_any_path(tmp_path: Path) -> None:
    for path in (Path, Place, str):
        with pytest.raises(specc.BundleError, match="no bundle at"):
            specc.load(path(str(tmp_path / "none.specc")))


def test_every_public_name_is_there() -> None:
    for name in specc.__all__:
        assert getattr(specc, name).__name__ == name
        assert name in dir(specc)
    assert specc.PromptError is sys.modules["specc.runtime.errors"].PromptError
    with pytest.raises(AttributeError, match="module 'specc' has no attribute 'Sesion'"):
        specc.Sesion  # noqa: B018


def test_all_errors_of_the_runtime_are_at_the_top_level() -> None:
    errors = [e for e in vars(sys.modules["specc.runtime.errors"]).values() if inspect.isclass(e)]
    names = {e.__name__ for e in errors if issubclass(e, (SpeccError, Warning))}
    assert names <= set(specc.__all__), names - set(specc.__all__)


@pytest.mark.process
def test_the_package_loads_nothing_before_a_name_is_used_and_no_torch_then() -> None:
    code = (
        "import sys, specc; print('numpy' in sys.modules, 'onnxruntime' in sys.modules);"
        "from specc import Session, Generation, Stats, BundleError; print('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["False", "False", "False"], result.stderr


@pytest.mark.torch
def test_compile_takes_the_options_of_the_compiler_with_their_types_and_defaults() -> None:
    from specc.backends import Options as BuildOptions
    from specc.compiler import Options

    parameters = inspect.signature(specc.compile).parameters
    assert list(parameters) == [field.name for field in fields(Options)]
    names = {"BuildOptions": BuildOptions, "Bundle": specc.Bundle}
    hints, types = get_type_hints(specc.compile, localns=names), get_type_hints(Options)
    for name in PLACES:  # `compile` takes any path, and gives the compiler text.
        assert os.PathLike[str] in get_args(hints[name])
        hints[name] = types[name]
    for name in ("recipes", "heads"):
        assert os.PathLike[str] in get_args(get_args(hints[name])[0])
        hints[name] = types[name]
    for field in fields(Options):
        if field.default_factory is not MISSING:  # None stands for what the factory makes.
            assert parameters[field.name].default is None
            assert hints[field.name] == types[field.name] | None
            continue
        assert hints[field.name] == types[field.name], field.name
        if field.default is not MISSING:
            assert parameters[field.name].default == field.default, field.name


def test_every_option_of_compile_and_load_is_described() -> None:
    for function in (specc.compile, specc.load):
        text = inspect.getdoc(function) or ""
        names: list[Any] = list(inspect.signature(function).parameters)
        assert [name for name in names if f"    {name}: " not in text] == []


def test_compile_without_the_compiler_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith(("specc.compiler", "specc.backends"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError) as e:
        specc.compile("a", "b")
    assert str(e.value).startswith("specc.compile needs the compiler, and ")
    assert str(e.value).endswith(f" is not installed; pip install {package('compile')}")
