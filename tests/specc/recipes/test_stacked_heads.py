"""Methods whose trained head guesses several tokens in one call."""

from __future__ import annotations

from typing import Any

import pytest

from specc.recipes.blocks import DECODE
from specc.recipes.entry import Facts, HeadFacts, MethodBlocks
from specc.recipes.stacked_heads import AMPHISTA, BLOCKWISE, MEDUSA
from specc.runtime.block import Block
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree

HEAD = HeadFacts(stack=3, recurrent=False, attends=False)
ATTENDING = HeadFacts(stack=3, recurrent=False)
FACTS = Facts(layers=8, vocab_size=500, heads={"medusa": HEAD, "blockwise": HEAD, "amphista": ATTENDING})


def medusa(**values: Any) -> MethodBlocks:
    return MEDUSA.plan(MEDUSA.settle(values), FACTS)


def blockwise(**values: Any) -> MethodBlocks:
    return BLOCKWISE.plan(BLOCKWISE.settle(values), FACTS)


def test_medusa_has_a_block_without_rows_of_its_own() -> None:
    (draft,) = medusa().engines.values()
    assert (draft.model, draft.cache, draft.inputs, draft.slots) == ("medusa", "target", ("state",), 1)


def test_medusas_tree_has_as_many_levels_as_the_head_guesses_tokens() -> None:
    tree = medusa().verify[1].topology
    assert isinstance(tree, Tree) and tree.slots == 12 and tree.depth.max() == 3
    message = "tree has 4 levels; the head guesses 3 tokens: give 3 levels at most"
    with pytest.raises(RecipeError, match=message):
        medusa(tree=[(0,), (0, 0), (0, 0, 0), (0, 0, 0, 0)])
    with pytest.raises(RecipeError, match=r"tree has a child of rank 8; medusa has 8 of each token: use 0\.\.7"):
        medusa(tree=[(rank,) for rank in range(9)])


def test_blockwise_drafts_a_chain_of_as_many_tokens_as_the_head_guesses() -> None:
    blocks = blockwise()
    assert blocks.verify == (DECODE, Block(Tree.chain(4))) and blocks.arguments["tree"] == (-1, 0, 1, 2)
    (draft,) = blocks.engines.values()
    assert (draft.model, draft.cache, draft.inputs, draft.slots) == ("blockwise", "target", ("state",), 1)
    assert blockwise(num_speculative_tokens=2).verify[1].slots == 3


def test_blockwise_refuses_longer_chains_than_the_head_guesses() -> None:
    with pytest.raises(RecipeError, match="num_speculative_tokens is 4; give a whole number from 1 to 3"):
        blockwise(num_speculative_tokens=4)


def test_amphista_has_rows_and_blocks_that_read_the_text() -> None:
    blocks = AMPHISTA.plan(AMPHISTA.settle({}), FACTS)
    assert {role: block.slots for role, block in blocks.engines.items()} == {"draft": 1, "feed": 4, "prefill": 64}
    assert {block.cache for block in blocks.engines.values()} == {"amphista"}
