"""Values of parameters: what a recipe refuses names the parameter, and no value of another kind gets through."""

from __future__ import annotations

from typing import Any

import pytest
import toys

from specc.recipes import METHODS, Facts
from specc.recipes.choice import plan
from specc.runtime.errors import SpeccError

# Each is wrong for every parameter but those whose default is of the same kind.
TEXTS: list[Any] = ["x", "", {}, {"a": 1}]
TRUTHS: list[Any] = [True, False, [True], [[True, 2]], [[[True], [1]]], [(0,), (True,)], [(False,)]]
NUMBERS: list[Any] = [float("nan"), float("inf"), 10**18, -1, [1.5], [-1], [10**18], [None], [[0.5, "a"]]]


def facts(name: str) -> Facts:
    needs = METHODS[name].needs
    return Facts(30, 49152, "assistant-model" in needs, toys.HEADS, 12, "corpus" in needs)


def refusal(name: str, parameter: str, value: Any) -> str:
    """Return the message by which a recipe refuses a value; empty if it takes the value."""
    method = METHODS[name]
    try:
        plan(method, method.settle({parameter: value}), facts(name))
    except SpeccError as e:
        return str(e)
    return ""


@pytest.mark.parametrize("name", METHODS)
def test_no_parameter_takes_a_value_of_another_kind_and_each_refusal_names_the_parameter(name: str) -> None:
    for parameter in METHODS[name].parameters:
        for value in [*TEXTS, *TRUTHS, *NUMBERS]:
            message = refusal(name, parameter, value)
            assert parameter in message and "; " in message and message.isprintable(), (parameter, value, message)


@pytest.mark.parametrize("name", METHODS)
def test_every_default_is_taken_so_the_test_can_fail(name: str) -> None:
    for parameter, own in METHODS[name].parameters.items():
        assert refusal(name, parameter, own.default) == ""


@pytest.mark.parametrize("value", [True, False, 2.0, "2", [2], 0, 30])
@pytest.mark.parametrize("name", [n for n, m in METHODS.items() if "assistant_early_exit" in m.parameters])
def test_a_number_of_layers_is_a_whole_number_and_no_truth_value(name: str, value: Any) -> None:
    assert f"assistant_early_exit is {value!r}" in refusal(name, "assistant_early_exit", value)
    assert name == "kangaroo" or refusal(name, "assistant_early_exit", 2) == ""


@pytest.mark.parametrize("layers", [[True], [1.0], [-1], [30], ["1"], [[1]]])
def test_layers_to_skip_are_numbers_of_layers_by_whatever_parameter_they_are_named(layers: list[Any]) -> None:
    for name in ("layer-skip", "draft-and-verify", "swift", "cascade", "quantized-self-draft"):
        for parameter in ("skip_layers", "skip_attention", "skip_mlp"):
            message = refusal(name, parameter, layers)
            assert message == f"recipe {name}: {parameter} has {layers[0]!r}; give numbers of layers from 0 to 29"
    message = refusal("swift", "skip_sets", [[layers, [1]]])
    assert message == f"recipe swift: skip_sets has {layers[0]!r}; give numbers of layers from 0 to 29"
    assert "exits is" in refusal("s2d", "exits", layers) and refusal("s2d", "exits", [1, 2]) == ""
