"""A chain that one call of a head drafts."""

from __future__ import annotations

import numpy as np
import pytest
from toys import VOCABULARY, World, prompts

from specc.runtime.draft import ONE_SLOT
from specc.runtime.drafters.peagle import Peagle
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Sequence


def test_a_draft_takes_one_call_whatever_was_accepted() -> None:
    decoder = World().method("peagle", num_speculative_tokens=3)
    sizes = set()
    for draft, calls in list(decoder.drafts(prompts(1, seed=3)[0] * 2, steps=20))[1:]:
        assert calls == 1
        sizes.add(len(draft.tokens))
    assert sizes == {4}


def test_the_slots_behind_the_text_stand_on_zeros() -> None:
    world = World()
    decoder = world.method("peagle", num_speculative_tokens=3)
    seq = Sequence([5, 6, 7, 8], world.caches)
    world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
    call = next(decoder.drafter.open(seq).propose(8))
    assert call.engine is decoder.drafter.engine and list(call.tokens[:3]) == [6, 7, 8] and len(call.tokens) == 5
    states = np.asarray(call.inputs["state"])
    assert states[:3].any(1).all() and len(states) == 5 and not states[3:].any()


def test_a_text_of_one_token_has_no_draft() -> None:
    decoder = World(VOCABULARY).method("peagle")
    (draft, calls), *_ = decoder.drafts([3], steps=1)
    assert draft.tree == ONE_SLOT and calls == 0


def test_a_draft_of_no_tokens_is_refused() -> None:
    with pytest.raises(RecipeError, match="num_speculative_tokens"):
        World().method("peagle", num_speculative_tokens=0)
    assert Peagle.files == ()
