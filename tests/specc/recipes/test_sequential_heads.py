"""Methods whose trained head reads the drafted tokens: which blocks run layers, and which heads have rows."""

from __future__ import annotations

import pytest

from specc.recipes.blocks import DECODE
from specc.recipes.entry import Facts, HeadFacts, Method
from specc.recipes.sequential_heads import CLOVER, CLOVER_2, HYDRA, HYDRA_PLUS_PLUS, RECURRENT_DRAFTER
from specc.runtime.block import Block, Frontier, Layers, Parents
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree

LAYERS = {"hydra": 0, "hydra_plus_plus": 1, "recurrent_drafter": 0, "clover": 1, "clover_2": 2}
HEADS = {name: HeadFacts(attends=count > 0, context_layers=count) for name, count in LAYERS.items()}
FACTS = Facts(layers=8, vocab_size=500, heads=HEADS)


@pytest.mark.parametrize("method", [HYDRA_PLUS_PLUS, CLOVER, CLOVER_2], ids=lambda method: method.name)
def test_drafts_leave_out_the_layers_that_read_the_text(method: Method) -> None:
    blocks = method.plan(method.settle({}), FACTS)
    every = tuple(range(LAYERS[method.head]))
    assert blocks.engines["draft"].layers == Layers(skip_attention=every, skip_mlp=every)
    for role in ("feed", "prefill"):
        assert blocks.engines[role].layers == Layers() and blocks.engines[role].cache == method.head


@pytest.mark.parametrize("method", [HYDRA, RECURRENT_DRAFTER], ids=lambda method: method.name)
def test_a_head_without_layers_has_no_rows_and_reads_the_last_token_alone(method: Method) -> None:
    blocks = method.plan(method.settle({}), FACTS)
    assert {block.cache for block in blocks.engines.values()} == {"target"}
    assert blocks.engines["feed"] == blocks.engines["prefill"]
    assert blocks.engines["feed"].topology == Tree.chain(1)


def test_beams_have_a_frontier_of_their_number_and_a_tree_of_all_tokens() -> None:
    blocks = RECURRENT_DRAFTER.plan(RECURRENT_DRAFTER.settle({"beams": 3, "max_depth": 5}), FACTS)
    assert blocks.engines["draft"].topology == Frontier(3, 16)
    assert blocks.verify == (DECODE, Block(Parents(16)))
    with pytest.raises(RecipeError, match="beams is 9; give a whole number from 1 to 8"):
        RECURRENT_DRAFTER.plan(RECURRENT_DRAFTER.settle({"beams": 9}), FACTS)
