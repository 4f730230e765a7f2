"""What a block may be, and which trees it can run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from specc.runtime.block import Block, Frontier, GuessTree, Layers, Parents, Pruning
from specc.runtime.errors import RecipeError, TreeError
from specc.runtime.json_codec import from_json, to_json
from specc.runtime.tree import Tree


@pytest.mark.parametrize(
    "output",
    ["id", "top_k", "top_k:0", "top_k:-1", "hidden:", "hidden:-2", "logits ", "ids\n", "state:", "state:A", "next"],
)
def test_an_output_that_no_block_has_is_named(output: str) -> None:
    with pytest.raises(RecipeError) as e:
        Block(Tree.chain(1), ("ids", output))
    assert repr(output) in str(e.value)


def test_a_type_of_weights_that_no_block_has_is_named() -> None:
    with pytest.raises(RecipeError, match="unknown type of weights 'int2'; choose one of fp32, fp16, bf16, int8, int4"):
        Block(Tree.chain(1), weights="int2")


def test_blocks_are_values() -> None:
    """The compiler builds equal blocks once."""
    assert Block(Tree.chain(3)) == Block(Tree((-1, 0, 1))) != Block(Parents(3))
    assert len({Block(Tree.chain(3)), Block(Tree((-1, 0, 1))), Block(Tree.chain(3), cache="other")}) == 2


@pytest.mark.parametrize(("parents", "fits"), [((-1, 0), True), ((-1, 0, 0), True), ((-1, 0, 1), False)])
def test_a_baked_tree_runs_what_its_first_slots_are(parents: tuple[int, ...], fits: bool) -> None:
    assert Block(Tree((-1, 0, 0, 1))).fits(Tree(parents)) is fits


def test_parents_as_an_input_run_any_tree_that_is_no_larger() -> None:
    assert Block(Parents(3)).fits(Tree((-1, 0, 0))) and Block(Parents(3)).fits(Tree((-1, 0, 1)))
    assert not Block(Parents(2)).fits(Tree((-1, 0, 1)))


def test_a_frontier_runs_chains_that_are_no_longer() -> None:
    assert Block(Frontier(3, 9)).fits(Tree.chain(3))
    assert not Block(Frontier(3, 9)).fits(Tree.chain(4))
    assert not Block(Frontier(3, 9)).fits(Tree((-1, 0, 0)))


def test_lanes_have_the_slots_of_the_topology_each_and_return_all_rows() -> None:
    block = Block(Tree.chain(3), lanes=4)
    assert (block.slots, block.topology.slots, block.is_chain) == (12, 3, True)
    assert to_json(Block(Tree.chain(3)))["lanes"] == 1 and to_json(block)["lanes"] == 4
    with pytest.raises(RecipeError, match="a block of 2 lanes returns all rows"):
        Block(Tree.chain(3), last_row=True, lanes=2)


def test_a_block_of_a_trained_head_reads_a_state_and_others_return_it() -> None:
    assert Block(Tree.chain(1), ("ids", "state:eagle3")).inputs == ()
    assert Block(Tree.chain(1), ("ids", "next_state"), inputs=("state",)).inputs == ("state",)
    with pytest.raises(RecipeError, match="unknown input 'taps'; a block can read state"):
        Block(Tree.chain(1), inputs=("taps",))


def test_a_block_reads_hidden_states_if_it_starts_after_a_layer() -> None:
    half = Block(Tree.chain(2), layers=Layers(start_after=1), inputs=("hidden",))
    for layers, inputs in ((Layers(), ("hidden",)), (Layers(start_after=1), ())):
        with pytest.raises(RecipeError, match="a block reads hidden states if it starts after a layer, and only then"):
            replace(half, layers=layers, inputs=inputs)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": Layers(start_after=1), "inputs": ("hidden",)}, "a block of 2 lanes reads tokens"),
        ({"quantized_group": 4}, "a block of 2 lanes reads all rows as they are"),
    ],
)
def test_what_lanes_do_not_run_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    Block(Tree.chain(2), **values)
    with pytest.raises(RecipeError, match=message):
        Block(Tree.chain(2), lanes=2, **values)


def test_groups_out_of_range_are_refused() -> None:
    with pytest.raises(RecipeError, match="quantized_group is -1; give 0 to 65536"):
        Block(Tree.chain(1), quantized_group=-1)
    with pytest.raises(RecipeError, match="quantized_bits is 5; give 4 or 8"):
        Block(Tree.chain(1), quantized_group=4, quantized_bits=5)
    with pytest.raises(RecipeError, match="parallel_group is 0; give 1 or more"):
        Layers(parallel_group=0)


def test_guesses_stand_behind_the_tokens_of_a_tree_and_take_no_tokens() -> None:
    topology = GuessTree((-1, 0, 0, 0, 2, 3), 3, "ppd")
    block = Block(topology)
    assert (block.slots, block.is_chain, block.tree) == (6, False, Tree((-1, 0, 0)))
    assert topology.guesses == ((3, 5), (), (4,)) and topology.tree == Tree(topology.parents)
    assert block.fits(Tree.chain(2)) and block.fits(Tree((-1, 0, 0))) and not block.fits(topology.tree)
    assert from_json(Block, to_json(block)) == block


@pytest.mark.parametrize(
    ("parents", "tokens", "message"),
    [
        ((-1, 0), 2, "2 of 2 slots take tokens; give 1 to 1"),
        ((-1, 0), 0, "0 of 2 slots take tokens; give 1 to 1"),
        ((-1, 0, 0), 1, r"two guesses stand behind one slot in \(0, 0\); give each slot one guess at most"),
        ((-1, 2, 0), 1, "not a tree: slot 1 has parent 2"),
    ],
)
def test_guesses_that_branch_and_trees_without_tokens_are_refused(
    parents: tuple[int, ...], tokens: int, message: str
) -> None:
    with pytest.raises(TreeError, match=message):
        GuessTree(parents, tokens, "ppd")


def test_a_block_of_several_lanes_has_no_guesses() -> None:
    with pytest.raises(RecipeError, match="a block of 2 lanes has tokens in all slots; leave out guesses, or lanes"):
        Block(GuessTree((-1, 0), 1, "ppd"), lanes=2)


STREAMS = GuessTree((-1, 0, 1, 0, 3, 1, 5, 2, 7), 3, "guess")  # A chain of three tokens, with two guesses behind each.
PRUNED = ("ids", "top_k:8", "logits", "kept")


def test_a_block_that_drops_tokens_has_rows_for_those_that_it_keeps_and_for_their_guesses() -> None:
    block = Block(STREAMS, PRUNED, pruning=Pruning(1, 2))
    assert (block.slots, block.rows) == (9, 6)
    assert block.output_topology == STREAMS.first(2) == GuessTree((-1, 0, 0, 2, 1, 4), 2, "guess")
    assert STREAMS.first(2).guesses == ((2, 3), (4, 5)) and STREAMS.first(3) == STREAMS
    assert Block(STREAMS).rows == 9 and Block(STREAMS).output_topology is STREAMS
    assert Block(Tree.chain(4), last_row=True).rows == 1 and Block(Tree.chain(4), lanes=3).rows == 12
    assert from_json(Block, to_json(block)) == block


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": ("ids",)}, "a block returns the slots that it kept if it drops some, and only then; give both"),
        ({"pruning": None}, "a block returns the slots that it kept if it drops some, and only then; give both"),
        ({"topology": Tree.chain(3)}, "only a tree whose tokens all have as many guesses is pruned"),
        (
            {"topology": GuessTree((-1, 0, 0), 2, "guess")},
            "only a tree whose tokens all have as many guesses is pruned",
        ),
        ({"pruning": Pruning(1, 4)}, "4 of 3 tokens go on; give 1 to 3"),
        ({"pruning": Pruning(1, 0)}, "0 of 3 tokens go on; give 1 to 3"),
        ({"pruning": Pruning(0, 2)}, "tokens are dropped after 0 layers; give 1 or more"),
        ({"layers": Layers(exit_after=2)}, "a block that drops tokens runs all layers and returns no hidden states"),
        ({"outputs": (*PRUNED, "hidden:1")}, "a block that drops tokens runs all layers and returns no hidden states"),
        ({"last_row": True}, "a block that drops tokens runs all layers and returns no hidden states"),
    ],
)
def test_pruning_that_no_block_can_do_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        replace(Block(STREAMS, PRUNED, pruning=Pruning(1, 2)), **changes)
