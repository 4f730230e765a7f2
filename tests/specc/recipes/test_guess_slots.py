"""Methods whose drafts come from slots of the model's own run."""

from __future__ import annotations

from typing import Any

import pytest

from specc.recipes.entry import Facts, HeadFacts, Method, MethodBlocks
from specc.recipes.guess_slots import (
    HIDDEN_TRANSFER,
    LEXICAL_UNITS,
    LEXICAL_UNITS_UNVERIFIED,
    PPD,
    SPECULATIVE_STREAMING,
)
from specc.runtime.block import KEPT, GuessTree, Pruning
from specc.runtime.errors import RecipeError

HEAD = HeadFacts(stack=3, recurrent=False, attends=False, in_model=True)
NAMES = ("ppd", "hidden_transfer", "lexical_units", "speculative_streaming")
FACTS = Facts(layers=8, vocab_size=500, heads={**dict.fromkeys(NAMES, HEAD), "medusa": HeadFacts()})


def ppd(**values: Any) -> MethodBlocks:
    return PPD.plan(PPD.settle(values), FACTS)


def trees(blocks: MethodBlocks) -> list[GuessTree]:
    topologies = [block.topology for block in blocks.engines.values()]
    assert all(isinstance(topology, GuessTree) for topology in topologies)
    return [topology for topology in topologies if isinstance(topology, GuessTree)]


def test_there_is_an_engine_for_each_number_of_guesses_and_each_verifies() -> None:
    blocks = ppd(num_speculative_tokens=6, guess_slots=10)
    assert list(blocks.engines) == ["step_0", "step_1", "step_2", "step_3"] and blocks.parts == set(blocks.engines)
    assert set(blocks.engines.values()) <= set(blocks.verify)
    assert [tree.tokens for tree in trees(blocks)] == [1, 7, 7, 7]
    assert all(tree.slots <= 17 and tree.head == "ppd" for tree in trees(blocks))
    assert [block.slots for block in blocks.verify] == sorted(block.slots for block in blocks.verify)


def test_the_size_follows_the_costs() -> None:
    dear, cheap = (
        max(tree.slots for tree in trees(ppd(step_costs=[[1, 1.0], [8, 1.1], [32, wide]]))) for wide in (3.0, 1.11)
    )
    assert dear == 8 and cheap == 32


def test_states_are_asked_of_the_heads_that_read_them_alone() -> None:
    assert FACTS.reading_heads == ("medusa",)


def test_lexical_units_are_chains_of_as_many_tokens_as_were_guessed() -> None:
    blocks = LEXICAL_UNITS.plan(LEXICAL_UNITS.settle({}), FACTS)
    assert [tree.token_tree.slots for tree in trees(blocks)] == [1, 2, 3, 4]
    assert all(tree.token_tree.is_chain and {len(slots) for slots in tree.guesses} == {3} for tree in trees(blocks))
    lossy = LEXICAL_UNITS_UNVERIFIED.plan(LEXICAL_UNITS_UNVERIFIED.settle({"confidence_threshold": 0.7}), FACTS)
    assert lossy.engines == blocks.engines and lossy.rule == {"threshold": 0.7}
    assert lossy.arguments == {"assistant_confidence_threshold": 0.7, "longest_repeat": 3}


@pytest.mark.parametrize("method", [HIDDEN_TRANSFER, SPECULATIVE_STREAMING], ids=lambda method: method.name)
def test_slots_that_begin_in_deep_layers_stand_behind_all_tokens(method: Method) -> None:
    blocks = method.plan(method.settle({"num_speculative_tokens": 4}), FACTS)
    assert {tree.head for tree in trees(blocks)} == {method.head}
    assert all({len(slots) for slots in tree.guesses} == {3} for tree in trees(blocks))
    assert [tree.tokens for tree in trees(blocks)] == [1, 5, 5, 5]


def test_streams_lose_nodes_in_the_middle_of_the_model_if_a_number_is_given() -> None:
    """A tree of fewer nodes keeps them all."""
    whole = SPECULATIVE_STREAMING.plan(SPECULATIVE_STREAMING.settle({"num_speculative_tokens": 4}), FACTS)
    settled = SPECULATIVE_STREAMING.settle({"num_speculative_tokens": 4, "kept_nodes": 2})
    pruned = SPECULATIVE_STREAMING.plan(settled, FACTS)
    assert trees(pruned) == trees(whole) and all(block.pruning is None for block in whole.verify)
    assert [block.pruning for block in pruned.engines.values()] == [None, *[Pruning(2, 3)] * 3]
    assert all((KEPT in block.outputs) == (block.pruning is not None) for block in pruned.engines.values())
    assert set(pruned.engines.values()) <= set(pruned.verify) and len(pruned.verify) == len(whole.verify)


@pytest.mark.parametrize("kept_nodes", [4, 5])
def test_as_many_kept_nodes_as_a_tree_has_are_refused(kept_nodes: int) -> None:
    settled = SPECULATIVE_STREAMING.settle({"num_speculative_tokens": 4, "kept_nodes": kept_nodes})
    message = f"kept_nodes is {kept_nodes}; give less than num_speculative_tokens, which is 4, or 0 to keep all"
    with pytest.raises(RecipeError, match=message):
        SPECULATIVE_STREAMING.plan(settled, FACTS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rates": [0.5]}, r"rates is \[0.5\]; give a list for each depth, such as \[\[0.5, 0.1\], \[0.3, 0.1\]\]"),
        ({"rates": [[0.5]]}, "rates has 1 depths; the head guesses 3 tokens: give so many lists"),
        ({"rates": [[0.5], [2], [0.5]]}, "rates is 2; give a number from 0 to 1"),
        ({"step_costs": [[1, 1.0]]}, r"step_costs is \[\]; give the cost of a step of 4 slots or more, too"),
        ({"guess_slots": 0}, "guess_slots is 0; give a whole number from 1 to 127"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ppd(**values)
