"""What a block may be."""

import pytest

from specc.runtime.block import Block, Parents
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


@pytest.mark.parametrize("output", ["id", "top_k", "top_k:0", "top_k:-1", "hidden:", "hidden:-2", "logits ", "ids\n"])
def test_an_output_that_no_block_has_is_named(output):
    with pytest.raises(RecipeError) as e:
        Block(Tree.chain(1), ("ids", output))
    assert repr(output) in str(e.value)


def test_blocks_are_values():
    """The compiler builds equal blocks once."""
    assert Block(Tree.chain(3)) == Block(Tree((-1, 0, 1))) != Block(Parents(3))
    assert len({Block(Tree.chain(3)), Block(Tree((-1, 0, 1))), Block(Tree.chain(3), cache="other")}) == 2


@pytest.mark.parametrize(("parents", "held"), [((-1, 0), True), ((-1, 0, 0), True), ((-1, 0, 1), False)])
def test_a_tree_holds_what_its_first_slots_are(parents, held):
    assert Block(Tree((-1, 0, 0, 1))).fits(Tree(parents)) is held
    assert Block(Parents(3)).fits(Tree(parents))
    assert not Block(Parents(2)).fits(Tree((-1, 0, 1)))
