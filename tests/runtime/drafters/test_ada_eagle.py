"""A chain that is as long as the head expects to be accepted."""

from __future__ import annotations

from typing import Any

import pytest
from toys import World, prompts

from specc.runtime import draft_head
from specc.runtime.drafters.ada_eagle import AdaEagleDrafting


@pytest.mark.parametrize(("expected", "tokens"), [(-2.0, 0), (0.4, 0), (0.6, 1), (2.2, 2), (9.0, 3)])
def test_the_length_is_the_last_number_of_the_next_state(
    expected: float, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = World().method("adaeagle", num_speculative_tokens=3)
    original = AdaEagleDrafting.most

    def most(self: AdaEagleDrafting, root: draft_head.HeadRoot, room: int) -> int:
        state: Any = root.outputs.next_state_NS
        state[0, -1] = expected
        return original(self, root, room)

    monkeypatch.setattr(AdaEagleDrafting, "most", most)
    drafts = list(decoder.drafts(prompts(1, seed=3)[0], steps=8))
    assert {len(draft.tokens) - 1 for draft, _ in drafts[1:]} == {tokens}
    for _, calls in drafts[1:]:  # The first token comes with the accepted ones, of which one alone takes this engine.
        assert calls - max(0, tokens - 1) in (0, 1)
