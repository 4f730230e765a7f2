"""Blocks that methods have in common, and what is refused before any is made."""

from __future__ import annotations

from typing import Any

import pytest

from specc.recipes.blocks import chains, count, draft_frontier, exit_layers, length_arguments, skipped_layers
from specc.recipes.entry import Facts
from specc.runtime.block import Frontier, Layers
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree

FACTS = Facts(layers=8, vocab_size=500)


@pytest.mark.parametrize(("longest", "widths"), [(12, [1, 4, 6, 12]), (6, [1, 4, 6]), (5, [1, 4, 5]), (2, [1, 2])])
def test_chains_have_some_widths_below_the_longest(longest: int, widths: list[int]) -> None:
    blocks = chains(longest)
    assert [block.slots for block in blocks] == widths
    assert all(isinstance(block.topology, Tree) and block.topology.is_chain for block in blocks)


@pytest.mark.parametrize("value", [0, -1, 1.0, "3", True, None, 128, 10**9])
def test_a_count_is_a_whole_number_from_the_least_on(value: Any) -> None:
    with pytest.raises(RecipeError, match=r"tokens is .*; give a whole number from 1 to 127"):
        count({"tokens": value}, "tokens")


def test_the_least_itself_is_a_count() -> None:
    assert count({"tokens": 1}, "tokens") == 1
    assert count({"tokens": 0}, "tokens", least=0) == 0
    with pytest.raises(RecipeError, match="tokens is 1; give a whole number from 2 to 127"):
        count({"tokens": 1}, "tokens", least=2)


def test_a_frontier_sees_the_tree_and_one_call() -> None:
    assert draft_frontier(2, 12) == Frontier(2, 4 + 12)


@pytest.mark.parametrize(("layers", "exit_after"), [(2, 1), (7, 1), (8, 2), (30, 7)])
def test_an_early_exit_runs_a_quarter_of_the_layers(layers: int, exit_after: int) -> None:
    values = {"assistant_early_exit": None}
    assert exit_layers(values, Facts(layers, 500)) == Layers(exit_after=exit_after)


@pytest.mark.parametrize("layer", [0, 8, -1, 2.0, "2", True])
def test_an_exit_outside_of_the_model_is_refused(layer: Any) -> None:
    with pytest.raises(RecipeError, match=r"assistant_early_exit is .*; give a number of layers from 1 to 7"):
        exit_layers({"assistant_early_exit": layer}, FACTS)


def test_the_first_and_the_last_exit_are_allowed() -> None:
    assert exit_layers({"assistant_early_exit": 1}, FACTS).exit_after == 1
    assert exit_layers({"assistant_early_exit": 7}, FACTS).exit_after == 7


def test_a_layer_that_is_skipped_whole_loses_both_sublayers() -> None:
    values = {"skip_layers": (5, 2), "skip_attention": [3], "skip_mlp": (2, 1)}
    assert skipped_layers(values, FACTS) == Layers(skip_attention=(2, 3, 5), skip_mlp=(1, 2, 5))
    assert skipped_layers(dict.fromkeys(values), FACTS) == Layers()


@pytest.mark.parametrize("name", ["skip_layers", "skip_attention", "skip_mlp"])
def test_a_layer_that_the_model_does_not_have_is_refused_by_name(name: str) -> None:
    values: dict[str, Any] = {"skip_layers": None, "skip_attention": None, "skip_mlp": None}
    assert skipped_layers({**values, name: [0, 7]}, FACTS) != Layers()
    with pytest.raises(RecipeError, match=f"{name} has 8; give numbers of layers from 0 to 7"):
        skipped_layers({**values, name: [8]}, FACTS)
    with pytest.raises(RecipeError, match=f"{name} has 1.0; give numbers of layers from 0 to 7"):
        skipped_layers({**values, name: [1.0]}, FACTS)
    with pytest.raises(RecipeError, match=rf"{name} is 5; give a list of layers, such as \[5\]"):
        skipped_layers({**values, name: 5}, FACTS)


def test_a_chain_drafter_gets_the_parameters_of_its_length_alone() -> None:
    values = {"num_speculative_tokens": 4, "assistant_confidence_threshold": 0.2, "skip_layers": None}
    assert length_arguments(values) == {"num_speculative_tokens": 4, "assistant_confidence_threshold": 0.2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rejection_threshold": 1.5}, "rejection_threshold is 1.5; give a number from 0 to 1"),
        ({"num_assistant_tokens_schedule": "bas"}, "choose one of constant, heuristic, bass"),
        ({"num_assistant_tokens_schedule": ["bass"]}, "choose one of constant, heuristic, bass"),
    ],
)
def test_a_length_out_of_range_is_refused_while_it_is_planned(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        length_arguments(values)
