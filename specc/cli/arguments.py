"""The options and types that several verbs share, and how a verb writes its options and examples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from specc.runtime.device import PROVIDERS
from specc.runtime.errors import RecipeError

OptionalStr = str | None
OptionalInt = int | None
OptionalPath = Path | None
StrList = list[str] | None  # An option that may be repeated; None if it never comes.


def examples(*lines: str) -> str:
    """Write the end of a help text: one example on each line."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def option(metavar: str, text: str, *names: str, **settings: Any) -> Any:
    """Declare an option with a value. A value that is nan or infinite is refused.

    Args:
        metavar: the name of the value in the help text.
        text: the help text.
        names: the names of the option. Without any, it has the name of the parameter.
        settings: further settings of `typer.Option`.
    """
    return typer.Option(*names, metavar=metavar, help=text, callback=finite, **settings)


def finite(value: Any) -> Any:
    """Return the value of an option as it is.

    Raises:
        BadParameter: it is a float, and not a finite one. Infinity is above each lower bound, so bounds let it pass.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise typer.BadParameter(f"{value} is not a finite number; give one, or leave the option out")
    return value


def flag(name: str, text: str, **settings: Any) -> Any:
    """Declare an option without a value.

    Args:
        name: the name of the option.
        text: the help text.
        settings: further settings of `typer.Option`.
    """
    return typer.Option(name, help=text, **settings)


def pairs(name: str, values: Sequence[str]) -> dict[str, str]:
    """Parse the values of a repeated KEY=VALUE option into a dictionary.

    Args:
        name: the name of the option, for the error message.
        values: the values.

    Raises:
        RecipeError: a value has no key, no `=` or nothing after it.
    """
    parsed = {}
    for value in values:
        key, _, rest = value.partition("=")
        if not key or not rest:
            raise RecipeError(f"{name} {value!r} is not KEY=VALUE")
        parsed[key] = rest
    return parsed


def split_commas(name: str, values: Sequence[str]) -> list[str]:
    """Split the values of a repeated option at commas, and return each word once.

    Args:
        name: the name of the option, for the error message.
        values: the values.

    Raises:
        RecipeError: a word is empty. An option without a word would silently mean its default.
    """
    words = []
    for value in values:
        parts = [word.strip() for word in value.split(",")]
        if not all(parts):
            raise RecipeError(f"{name} {value!r} has an empty name; write names with commas, or leave the option out")
        words += parts
    return list(dict.fromkeys(words))


BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A directory that 'specc compile' wrote.")]
JsonOption = Annotated[bool, flag("--json", "Print one JSON value, and nothing else, to standard output.")]
ThreadsOption = Annotated[
    OptionalInt,
    option("N", "Threads of one engine on the CPU. Default: SPECC_THREADS, or the processors.", "-t", "--threads"),
]
DeviceOption = Annotated[str, option("D", "The device that runs the engines: cpu or cuda.")]
ProviderOption = Annotated[OptionalStr, option("P", f"The provider of ONNX Runtime: {', '.join(PROVIDERS)}.")]
NATIVE_CODE = "Run engines that are native code of the bundle's author. Use it only for bundles whose author you trust."
NativeCodeOption = Annotated[bool, flag("--allow-native-code", NATIVE_CODE)]
BackendOption = Annotated[
    OptionalStr,
    option("NAME", "The backend whose engines run, if the bundle has several. Default: the first that may run here."),
]
