"""Methods that draft by a recurrent trained head."""

from __future__ import annotations

import pytest

from specc.recipes.blocks import DECODE, committing
from specc.recipes.dflash import DFLASH
from specc.recipes.entry import Facts, HeadFacts
from specc.recipes.heads import EAGLE3, EAGLE3_TREE
from specc.runtime.block import Block, Frontier, Parents

FACTS = Facts(layers=8, vocab_size=500, heads={"eagle3": HeadFacts(), "medusa": HeadFacts(stack=3, recurrent=False)})


def test_a_chain_has_engines_for_a_token_for_a_step_and_for_a_prompt() -> None:
    blocks = EAGLE3.plan(EAGLE3.settle({"num_speculative_tokens": 3}), FACTS)
    assert [block.slots for block in blocks.verify] == [1, 4]
    assert {role: block.slots for role, block in blocks.engines.items()} == {"draft": 1, "feed": 4, "prefill": 64}
    for block in blocks.engines.values():
        assert (block.model, block.cache, block.inputs) == ("eagle3", "eagle3", ("state",))
        assert {"next_state", "logits"} <= set(block.outputs)


@pytest.mark.parametrize("depth", [1, 5])
def test_a_tree_grows_by_a_frontier_that_sees_all_of_it(depth: int) -> None:
    blocks = EAGLE3_TREE.plan(EAGLE3_TREE.settle({"max_depth": depth}), FACTS)
    assert blocks.verify == (DECODE, *(Block(Parents(slots)) for slots in (4, 6, 8, 12)))
    topology = blocks.engines["draft"].topology
    assert (
        isinstance(topology, Frontier) and topology.span == 1 + 4 * depth and blocks.engines["feed"].slots == 1 + depth
    )


def test_a_block_that_commits_rows_returns_what_each_head_reads() -> None:
    assert committing(DECODE, FACTS.heads).outputs == ("ids", "logits", "state:eagle3", "state:medusa")
    assert committing(DECODE, ()) == DECODE


@pytest.mark.parametrize(("guesses", "tokens"), [(1, 1), (3, 3), (7, 4)])
def test_a_block_is_drafted_as_far_as_its_head_guesses(guesses: int, tokens: int) -> None:
    facts = Facts(layers=8, vocab_size=500, heads={"dflash": HeadFacts(guesses=guesses)})
    blocks = DFLASH.plan(DFLASH.settle({}), facts)
    assert blocks.arguments == {"num_speculative_tokens": tokens, "block_size": 1 + guesses}
    assert blocks.verify[-1].slots == 1 + tokens and blocks.engines["draft"].slots == 1 + tokens + 1 + guesses
