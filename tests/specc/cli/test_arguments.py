"""Options with numbers, and options that may be repeated."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import typer
from shell import refused

import specc.cli as specc_cli
from specc.cli import _commands
from specc.cli.arguments import examples, finite, pairs, split_commas
from specc.runtime.errors import RecipeError


def test_pairs_are_split_at_the_first_equals_sign() -> None:
    assert pairs("--peer-model", ["a=x.gguf", "b=/m?k=v"]) == {"a": "x.gguf", "b": "/m?k=v"}


@pytest.mark.parametrize("value", ["a", "a=", "=b", "="])
def test_a_pair_without_key_or_value_is_refused(value: str) -> None:
    with pytest.raises(RecipeError, match=r"--peer-model .* is not KEY=VALUE"):
        pairs("--peer-model", ["x=y", value])


def test_names_with_commas_come_once_and_in_order() -> None:
    assert split_commas("--recipe", ["b, a", "a,c"]) == ["b", "a", "c"] and split_commas("--recipe", []) == []


@pytest.mark.parametrize("value", ["", " ", "a,,b", "a,", ",a"])
def test_an_empty_name_between_commas_is_refused(value: str) -> None:
    message = f"--recipe {value!r} has an empty name; write names with commas, or leave the option out"
    with pytest.raises(RecipeError, match=re.escape(message)):
        split_commas("--recipe", ["plain", value])


def test_examples_stand_on_lines_of_their_own() -> None:
    assert examples("specc a", "specc b") == "\b\nExamples:\n  specc a\n  specc b"


FLOATS = {
    name
    for file in Path(specc_cli.__file__).parent.glob("*.py")
    for name in re.findall(r"(\w+): Annotated\[float\b", file.read_text(encoding="utf-8"))
}


def options_with_numbers(command: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], str]]:
    """Every verb with each of its options that takes a float."""
    if hasattr(command, "commands"):
        parts = [options_with_numbers(each, (*path, name)) for name, each in command.commands.items()]
        return [pair for part in parts for pair in part]
    return [(path, one.opts[-1]) for one in command.params if one.name in FLOATS]


NUMBERS = options_with_numbers(_commands())


@pytest.mark.parametrize(
    ("verb", "name"), NUMBERS, ids=lambda value: " ".join([value] if isinstance(value, str) else value)
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_a_number_that_is_not_finite_is_refused_by_the_name_of_its_option(
    verb: tuple[str, ...], name: str, value: str
) -> None:
    message = refused(*verb, name, value)
    assert name in message and ("is not a finite number; give one" in message or "Input should be" in message)


def test_the_options_with_numbers_are_found() -> None:
    names = {name for _, name in NUMBERS}
    assert {"--minutes", "--recording-minutes", "--temperature", "--older-than", "--tolerance"} <= names


def test_finite_numbers_and_other_values_pass() -> None:
    values = [0.0, -1.5, 3, None, "nan", [math.nan]]
    assert [finite(value) for value in values] == values
    with pytest.raises(typer.BadParameter, match="nan is not a finite number"):
        finite(math.nan)
