"""Methods that verify guesses of the target's own."""

from __future__ import annotations

import pytest

from specc.recipes.entry import Facts
from specc.recipes.guesses import FASTCOT, GAUSS_SEIDEL_JACOBI, HYBRID_JACOBI, JACOBI, LOOKAHEAD
from specc.runtime.block import Block
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree

FACTS = Facts(layers=8, vocab_size=500)


def test_jacobi_verifies_one_chain_of_all_its_guesses() -> None:
    blocks = JACOBI.plan(JACOBI.settle({}), FACTS)
    assert blocks.verify == (Block(Tree.chain(6)),) and not blocks.engines


def test_a_window_has_the_rows_of_an_n_gram_without_its_first_token() -> None:
    values = LOOKAHEAD.settle({"window_size": 3, "ngram_size": 4, "max_candidates": 2})
    assert LOOKAHEAD.plan(values, FACTS).verify == (Block(Tree.window(3, 3, 2)),)
    assert LOOKAHEAD.plan(LOOKAHEAD.settle({}), FACTS).verify[0].slots == 22


@pytest.mark.parametrize(
    ("name", "value", "least"), [("window_size", 0, 1), ("ngram_size", 1, 2), ("window_size", 10**9, 1)]
)
def test_a_window_without_columns_or_rows_is_refused(name: str, value: int, least: int) -> None:
    with pytest.raises(RecipeError, match=f"{name} is {value}; give a whole number from {least} to 127"):
        LOOKAHEAD.plan(LOOKAHEAD.settle({name: value}), FACTS)


def test_a_window_may_verify_no_candidate() -> None:
    assert LOOKAHEAD.plan(LOOKAHEAD.settle({"max_candidates": 0}), FACTS).verify == (Block(Tree.window(4, 3, 0)),)


def test_a_block_is_verified_by_chains_up_to_its_size() -> None:
    blocks = GAUSS_SEIDEL_JACOBI.plan(GAUSS_SEIDEL_JACOBI.settle({"block_size": 5}), FACTS)
    assert [block.slots for block in blocks.verify] == [1, 4, 5]
    assert blocks.arguments == {"block_size": 5}


@pytest.mark.parametrize(
    ("name", "value", "least", "most"), [("block_size", 1, 2, 127), ("parallel_tokens", 0, 1, 1048576)]
)
def test_blocks_and_parallel_tokens_out_of_range_are_refused(name: str, value: int, least: int, most: int) -> None:
    with pytest.raises(RecipeError, match=f"{name} is {value}; give a whole number from {least} to {most}"):
        HYBRID_JACOBI.plan(HYBRID_JACOBI.settle({name: value}), FACTS)


def test_a_lossy_recipe_says_so_where_it_is_read() -> None:
    assert not FASTCOT.lossless and not FASTCOT.by_default
    assert "lossy" in FASTCOT.title and "lossy" in FASTCOT.parameters["confidence_threshold"].help
    blocks = FASTCOT.plan(FASTCOT.settle({"confidence_threshold": 1}), FACTS)
    assert blocks.rule == {"threshold": 1} and blocks.arguments["confidence_threshold"] == 1
    slots = [block.slots for block in FASTCOT.plan(FASTCOT.settle({"answer_tokens": [4, 5]}), FACTS).verify]
    ending = FASTCOT.plan(FASTCOT.settle({"answer_tokens": [4, 5], "reasoning_steps": 9}), FACTS)
    assert (slots, [block.slots for block in ending.verify]) == ([6], [6, 8])
    with pytest.raises(RecipeError, match=r"confidence_threshold is 1\.5; give a number from 0 to 1"):
        FASTCOT.plan(FASTCOT.settle({"confidence_threshold": 1.5}), FACTS)
