"""SWIFT's plan: several sets of layers to skip."""

from __future__ import annotations

import pytest

from specc.recipes.entry import Facts, MethodBlocks
from specc.recipes.swift import SWIFT
from specc.runtime.block import Frontier, Layers
from specc.runtime.errors import RecipeError


def plan(**values: object) -> MethodBlocks:
    return SWIFT.plan(SWIFT.settle(values), Facts(layers=8, vocab_size=500))


def test_each_set_of_swift_is_a_draft_and_a_block_that_compares() -> None:
    engines = plan(skip_sets=[[[1], [2]], [[3], []]], context_tokens=8).engines
    assert [*engines] == ["draft_0", "check_0", "draft_1", "check_1"]
    assert engines["draft_1"].layers == engines["check_1"].layers == Layers(skip_attention=(3,))
    assert engines["draft_0"].slots == 1 and engines["check_0"].topology == Frontier(8, 16)
    assert [*plan(skip_layers=(2,)).engines] == ["draft_0"]


@pytest.mark.parametrize("sets", [[], 3, [[1]], [[[1], 2]], [[[1], [9]]], [[[1], []]] * 17])
def test_sets_that_are_no_pairs_of_layers_are_refused(sets: object) -> None:
    with pytest.raises(RecipeError, match=r"skip_sets is|skip_sets has 9"):
        plan(skip_sets=sets)
    with pytest.raises(RecipeError, match="leave out one of the two"):
        plan(skip_sets=sets, skip_mlp=(1,))


def test_a_comparison_that_has_no_room_is_refused_before_the_search() -> None:
    with pytest.raises(RecipeError, match="context_tokens is 65; give 64 or less"):
        plan(context_tokens=65)
