"""A double that records its calls and holds each one against the real library's own signatures."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from typing import Any

# By the name of a type in pybind11's signatures: the Python types that it takes. Other names take anything.
KINDS: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "SupportsInt": int,
    "int": int,
    "Buffer": bytes,
    "Sequence": (tuple, list),
    "Dims": (tuple, list),
}


class Recorder:
    """An object whose methods are functions, and whose calls are checked and recorded.

    Attributes:
        calls: each call as (name, *arguments). Several doubles may share one list.
        real: the class or module that it stands for; None if the library is not installed, and nothing is checked.
        methods: what it does, by name.
    """

    def __init__(self, calls: list[tuple[Any, ...]], real: Any, methods: dict[str, Callable[..., Any]]) -> None:
        self.calls, self.real, self.methods = calls, real, methods

    def __getattr__(self, name: str) -> Any:
        if name not in self.methods:
            raise AttributeError(name)

        def call(*args: Any) -> Any:
            self.check(name, args)
            self.calls.append((name, *args))
            return self.methods[name](*args)

        return call

    def check(self, name: str, args: tuple[Any, ...]) -> None:
        """Assert that an overload of the real method takes these arguments, by their number and types."""
        if self.real is not None:
            overloads = signatures(self.real, name)
            fits = [o for o in overloads if len(o) == len(args) and all(map(fitting, o, args))]
            assert fits, f"{name}{args} fits none of {overloads}"


class FunctionRecorder(Recorder):
    """A double of a module of Cython functions, whose docstrings give the number of arguments and no types."""

    def check(self, name: str, args: tuple[Any, ...]) -> None:
        """Assert that the real function takes so many arguments."""
        if self.real is not None:
            signature = getattr(self.real, name).__doc__.splitlines()[0]
            count = len([a for a in signature.partition("(")[2].rpartition(")")[0].split(",") if a.strip()])
            assert count == len(args), f"{name}{args} against {signature}"


def installed(module: str) -> Any:
    """Return a module, or None if it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def signatures(owner: Any, name: str) -> list[list[str]]:
    """Return the types of each overload's arguments, as pybind11 writes them into a docstring."""
    lines = getattr(owner, name).__doc__.splitlines()
    matches = [re.match(rf"\s*(?:\d+\. )?{name}\((.*)\)(?: ->.*)?$", line) for line in lines]
    overloads = [m[1] for m in matches if m and not m[1].startswith("*args")]
    assert overloads, f"{name} has no signature"
    return [[type_name(argument) for argument in arguments(overload)] for overload in overloads]


def arguments(signature: str) -> list[str]:
    """Split a signature at the commas outside brackets, and leave out self."""
    parts = [part for part in re.split(r",\s*(?![^\[]*\])", signature) if part]
    return parts[1:] if parts and parts[0].startswith("self") else parts


def type_name(argument: str) -> str:
    """Return the type of `name: package.Type[...] = default`, without package and brackets."""
    return re.sub(r"\[.*", "", argument.partition(":")[2]).strip().split(" ")[0].split(".")[-1]


def fitting(kind: str, value: Any) -> bool:
    """Return whether a value can be an argument of that type."""
    return isinstance(value, KINDS[kind]) if kind in KINDS else True
