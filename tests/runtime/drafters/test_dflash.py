"""A block of tokens that one call of a head drafts."""

from __future__ import annotations

import numpy as np
import pytest
from toys import HEADS, VOCABULARY, World, prompts

from specc.runtime.call import Call, Growth
from specc.runtime.draft import ONE_SLOT
from specc.runtime.drafters.dflash import CONTEXT, PENDING
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Sequence

BLOCK = 1 + HEADS["dflash"].guesses


def first_call(world: World, tokens: list[int], room: int, count: int = 3) -> Call:
    """Return the call that drafts, for a text whose states the target has."""
    drafter = world.method("dflash", num_speculative_tokens=count).drafter
    seq = Sequence(tokens, world.caches)
    world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
    call: Call = next(drafter.open(seq).propose(room))
    return call


def test_a_draft_takes_one_call_whatever_was_accepted() -> None:
    decoder = World().method("dflash", num_speculative_tokens=3)
    sizes = set()
    for draft, calls in list(decoder.drafts(prompts(1, seed=3)[0] * 2, steps=20))[1:]:
        assert calls == 1
        sizes.add(len(draft.tokens))
    assert sizes == {4}


@pytest.mark.parametrize("room", [1, 8])
def test_a_whole_block_stands_behind_the_text_whatever_the_draft_needs(room: int) -> None:
    call = first_call(World(), [5, 6, 7, 8], room)
    states = np.asarray(call.inputs["state"])
    assert list(call.tokens) == [6, 7, 8, *[8] * BLOCK]
    assert states[:3].any(1).all() and (states[3:, :-1] == states[2, :-1]).all()
    assert states[3:, -1].tolist() == [*range(PENDING, PENDING + BLOCK)] and PENDING > CONTEXT
    assert call.tree == Growth.block(3, BLOCK)


def test_a_draft_is_the_guesses_of_the_slots_behind_the_pending_token() -> None:
    world = World()
    drafter = world.method("dflash", num_speculative_tokens=3).drafter
    seq = Sequence([5, 6, 7, 8], world.caches)
    world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
    proposal = drafter.open(seq).propose(8)
    outputs = next(proposal).run()
    ids = [int(token) for token in outputs.ids_N]
    with pytest.raises(StopIteration) as end:
        proposal.send(outputs)
    assert list(end.value.value.tokens) == [8, *ids[4:7]]


def test_a_text_of_one_token_has_no_draft() -> None:
    (draft, calls), *_ = World(VOCABULARY).method("dflash").drafts([3], steps=1)
    assert draft.tree == ONE_SLOT and calls == 0


def test_a_draft_of_more_tokens_than_the_head_guesses_is_refused() -> None:
    with pytest.raises(RecipeError, match=f"num_speculative_tokens is {BLOCK}, and the head guesses {BLOCK - 1}"):
        World().method("dflash", num_speculative_tokens=BLOCK)
