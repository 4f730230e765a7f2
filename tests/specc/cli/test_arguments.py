"""Options that may be repeated."""

from __future__ import annotations

import re

import pytest

from specc.cli.arguments import examples, pairs, split_commas
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
