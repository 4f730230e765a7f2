"""How the verbs write their options and examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from specc.runtime.device import PROVIDERS
from specc.runtime.errors import RecipeError

Word = str | None
Words = list[str] | None
Count = int | None
File = Path | None


def examples(*lines: str) -> str:
    """An epilog of one example a line."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def option(metavar: str, text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, **more)


def flag(name: str, text: str, **more: Any) -> Any:
    return typer.Option(name, help=text, **more)


def pairs(name: str, given: Sequence[str]) -> dict[str, str]:
    """What was given as KEY=VALUE, some times. Raises RecipeError."""
    if bad := next((g for g in given if not all(g.partition("="))), None):
        raise RecipeError(f"{name} {bad!r} is not KEY=VALUE")
    return {key: value for key, _, value in (g.partition("=") for g in given)}


def commas(given: Sequence[str]) -> list[str]:
    """What was given in several options, or in one with commas, each once."""
    return list(dict.fromkeys(word.strip() for g in given for word in g.split(",") if word.strip()))


BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A directory that specc compile wrote.")]
Json = Annotated[bool, flag("--json", "Print one JSON value and nothing else.")]
DeviceOption = Annotated[str, option("D", "Where engines run: cpu or cuda.")]
Provider = Annotated[Word, option("P", f"Of ONNX Runtime: {', '.join(PROVIDERS)}.")]
Whose = Annotated[Word, option("NAME", "Whose engines, in a bundle of several backends. Default: the first that runs.")]
