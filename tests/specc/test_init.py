"""The package at the top level: its names, its two functions, and what it loads."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import specc
from specc.runtime.errors import SpeccError


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
    names = {"BuildOptions": BuildOptions, "Bundle": specc.Bundle, "Path": Path}
    hints, types = get_type_hints(specc.compile, localns=names), get_type_hints(Options)
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
    assert str(e.value).endswith(" is not installed; pip install specc-compiler[compile]")
