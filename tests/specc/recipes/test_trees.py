"""Methods that draft trees."""

from __future__ import annotations

from typing import Any

import pytest

from specc.recipes.blocks import DECODE
from specc.recipes.entry import Facts, MethodBlocks
from specc.recipes.trees import ADAPTIX, DYNAMIC_TREE, EARLY_EXIT, TOKEN_RECYCLING
from specc.runtime.block import Block, Frontier, Layers, Parents
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree

FACTS = Facts(layers=8, vocab_size=500)
LITERAL = [(0,), (1,), (0, 0)]


def early_exit(**values: Any) -> MethodBlocks:
    return EARLY_EXIT.plan(EARLY_EXIT.settle(values), FACTS)


def recycling(**values: Any) -> MethodBlocks:
    return TOKEN_RECYCLING.plan(TOKEN_RECYCLING.settle(values), FACTS)


def tree_of(block: Block) -> Tree:
    assert isinstance(block.topology, Tree)
    return block.topology


def test_the_default_tree_of_an_early_exit_has_12_slots_and_4_ranks() -> None:
    (verify,) = early_exit().verify
    tree = tree_of(verify)
    assert (tree.slots, int(tree.depth.max()), max(tree.rank)) == (12, 5, 3)


def test_an_early_exit_drafts_by_its_first_layers_with_the_tree_as_an_argument() -> None:
    blocks = early_exit(tree=LITERAL, assistant_early_exit=3)
    tree = Tree.from_paths(LITERAL)
    assert blocks.verify == (Block(tree),) and blocks.arguments == {"tree": tree.parents}
    draft = blocks.engines["draft"]
    assert draft.layers == Layers(exit_after=3) and "top_k:8" in draft.outputs


@pytest.mark.parametrize(("literal", "width"), [([(0,)], 1), (LITERAL, 2), ([(i,) for i in range(6)], 4)])
def test_a_draft_call_has_the_slots_of_the_widest_level_and_4_at_most(literal: Any, width: int) -> None:
    topology = early_exit(tree=literal).engines["draft"].topology
    assert topology == Frontier(width, 4 + 1 + len(literal))


def test_a_recycled_tree_has_a_node_for_each_token_and_the_vocabulary_as_an_argument() -> None:
    blocks = recycling(num_speculative_tokens=9)
    (verify,) = blocks.verify
    assert tree_of(verify).slots == 10 and "top_k:8" in verify.outputs
    assert blocks.arguments == {"tree": tree_of(verify).parents, "vocab_size": 500}
    assert tree_of(recycling(tree=LITERAL).verify[0]) == Tree.from_paths(LITERAL)


def test_a_rank_beyond_the_kept_successors_is_refused() -> None:
    assert recycling(tree=[(i,) for i in range(8)])
    with pytest.raises(RecipeError, match=r"a child of rank 8; token-recycling keeps 8 successors: use ranks 0\.\.7"):
        recycling(tree=[(i,) for i in range(9)])


def test_a_dynamic_tree_drafts_by_an_early_exit_or_by_the_draft_model() -> None:
    values = DYNAMIC_TREE.settle({"num_speculative_tokens": 7, "max_depth": 3})
    alone = DYNAMIC_TREE.plan(values, FACTS)
    assert alone.verify == (Block(Parents(8)),)
    assert alone.engines.keys() == {"draft"} and alone.engines["draft"].layers == Layers(exit_after=2)
    assert alone.engines["draft"].topology == Frontier(4, 4 + 8)
    assert alone.arguments == {"num_speculative_tokens": 7, "max_depth": 3}
    assisted = DYNAMIC_TREE.plan(values, Facts(8, 500, assistant=True))
    assert {(role, block.model) for role, block in assisted.engines.items()} == {
        ("draft", "assistant"),
        ("prefill", "assistant"),
    }
    assert assisted.verify == alone.verify and assisted.arguments == alone.arguments


def test_a_search_is_verified_by_an_engine_that_takes_any_tree_of_its_nodes() -> None:
    blocks = ADAPTIX.plan(ADAPTIX.settle({"num_speculative_tokens": 9}), FACTS)
    assert blocks.verify == (DECODE, Block(Parents(10))) and not blocks.engines
    with pytest.raises(RecipeError, match="search_iterations is -1; give a whole number from 0 to 4096"):
        ADAPTIX.plan(ADAPTIX.settle({"search_iterations": -1}), FACTS)
