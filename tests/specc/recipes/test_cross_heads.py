"""Heads that read what the model said: which blocks they need."""

from __future__ import annotations

import pytest

from specc.recipes import METHODS, Facts, HeadFacts
from specc.runtime.block import TARGET_ROWS, Block
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree

FACTS = Facts(
    4, 100, heads={"glide": HeadFacts(recurrent=False, reads_rows=True), "mixture_of_attentions": HeadFacts()}
)


@pytest.mark.parametrize("name", ["glide", "glide-cape"])
def test_a_head_that_reads_rows_has_its_own_beside_them(name: str) -> None:
    method = METHODS[name]
    for block in method.plan(method.settle({}), FACTS).engines.values():
        assert (block.cache, block.store, block.inputs) == ("glide", "target", (TARGET_ROWS,))
        assert not any("state" in output for output in block.outputs)


def test_the_model_returns_no_states_for_a_head_that_reads_rows() -> None:
    assert FACTS.reading_heads == ("mixture_of_attentions",)


def test_a_block_of_several_lanes_reads_no_rows_of_others() -> None:
    with pytest.raises(RecipeError, match="2 lanes reads its own rows"):
        Block(Tree.chain(1), lanes=2, inputs=(TARGET_ROWS,))
