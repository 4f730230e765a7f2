"""Values of the command line: what is parsed, and how a wrong value is refused."""

from __future__ import annotations

import pytest
from shell import refused

from specc.cli.values import parse_layers, parse_settings, parse_tree


def test_settings_are_grouped_by_recipe() -> None:
    settings = [
        "early-exit.assistant_early_exit=2",
        "early-exit.tree=[(0,)]",
        "prompt-lookup.prompt_lookup_num_tokens=5",
    ]
    assert parse_settings(settings, tree=[(1,)], skip_layers=None) == {
        "": {"tree": [(1,)]},
        "early-exit": {"assistant_early_exit": 2, "tree": [(0,)]},
        "prompt-lookup": {"prompt_lookup_num_tokens": 5},
    }


def test_trees_and_layers_are_read_as_they_are_written() -> None:
    assert parse_tree("[(0,), (0, 0)]") == [(0,), (0, 0)]
    assert parse_layers("--skip-layers", "3, 4") == [3, 4]
    assert parse_tree(None) is None and parse_layers("--skip-layers", None) is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("early-exit", "is not RECIPE.PARAMETER=VALUE"),
        ("tree=3", "is not RECIPE.PARAMETER=VALUE"),
        ("early-exi.tree=3", "no recipe 'early-exi'; did you mean 'early-exit'?"),
        ("early-exit.tre=3", "no parameter 'tre'; did you mean 'tree'?"),
        ("early-exit.tree=[(0,)", "'[(0,)' is not a Python literal"),
        ("early-exit.tree=open('x')", "is not a Python literal"),
    ],
)
def test_a_bad_setting_is_refused(setting: str, message: str) -> None:
    assert message in refused("compile", "model", "-o", "out", "--set", setting)


@pytest.mark.parametrize(
    ("literal", "message"),
    [
        ("[(0,), (0, 1)]", "path [0, 1] needs path [0, 0]; add it"),
        ("[(1,)]", "path [1] needs path [0]; add it"),
        ("[(0,), (0,)]", "path [0] is written twice"),
        ("[0, 1]", "not a tree"),
        ("[('a',)]", "not a tree"),
        ("[()]", "not a tree"),
        ("7", "not a tree"),
        ("[(0,", "is not a Python literal"),
    ],
)
def test_a_literal_that_is_not_a_tree_is_refused(literal: str, message: str) -> None:
    assert message in refused("compile", "model", "-o", "out", "--tree", literal)


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 20000, "0o" + "7" * 9000, "9" * 20])
def test_a_number_of_too_many_digits_is_one_short_line(number: str) -> None:
    argv = ("compile", "model", "-o", "out")
    for value in (number, f"[1, ({number},)]", f"{{'a': {number}}}"):
        for words in (("--set", f"jacobi.num_speculative_tokens={value}"), ("--tree", value)):
            message = refused(*argv, *words)
            assert len(message) < 250 and ("whole number of" in message or "is not a Python literal" in message)
    assert len(refused(*argv, "--skip-layers", "9" * 4000)) < 250
    assert len(refused(*argv, "--skip-layers", "9" * 5000)) < 250


def test_layers_that_are_not_numbers_are_refused() -> None:
    assert "--skip-layers '3,x' is not a list of layers" in refused(
        "compile", "model", "-o", "out", "--skip-layers", "3,x"
    )
