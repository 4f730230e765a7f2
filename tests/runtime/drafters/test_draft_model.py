"""A draft model keeps a cache of its own, which follows the text."""

from __future__ import annotations

import pytest
from toys import World, prompts, propose

from specc.runtime.sequence import Sequence

PROMPT = prompts(3)[2]


@pytest.mark.parametrize("count", [1, 3])
def test_a_draft_costs_a_call_a_token(count: int) -> None:
    """The first one also reads the prompt, with another engine. A token accepted at the very end was not run yet."""
    decoder = World().method("draft-model", assistant=True, num_speculative_tokens=count)
    for draft, calls in list(decoder.drafts(PROMPT))[1:]:
        assert draft.tree.slots == 1 + count
        assert count <= calls <= count + 1


def test_its_cache_holds_the_text_and_the_draft_but_for_the_last_token() -> None:
    decoder = World().method("draft-model", assistant=True, num_speculative_tokens=3)
    seq = Sequence(list(PROMPT), decoder.world.caches)
    steps, cache = decoder.steps(seq), decoder.world.caches["assistant"]
    for _ in range(5):
        next(steps)
        draft = propose(decoder.drafter.open(seq))
        assert draft.tree.slots == 4
        assert cache.tokens == [*seq.tokens[:-1], *draft.tokens[:-1]]
