"""Trees that change at each step: what they cost, and what they are made of."""

from __future__ import annotations

import pytest
from toys import World, prompts

from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling

PROMPT = prompts(3)[2]


@pytest.mark.parametrize("assistant", [False, True])
def test_a_tree_costs_a_call_a_level(assistant: bool) -> None:
    """The last level is not run; what the last step accepted is read with the first."""
    decoder = World().method("dynamic-tree", assistant=assistant, num_speculative_tokens=9, max_depth=3)
    drafts = list(decoder.drafts(PROMPT))[1:]
    assert max(calls for _, calls in drafts) == 3
    assert all(calls == draft.tree.depth.max() and draft.tree.slots <= 10 for draft, calls in drafts)


@pytest.mark.parametrize(("acceptance", "temperature"), [("match", 0.0), ("recursive", 1.0)])
def test_a_tree_changes_its_shape_and_wastes_no_slot_on_a_token_twice(acceptance: str, temperature: float) -> None:
    decoder = World().method("dynamic-tree", acceptance=acceptance)
    sampling = Sampling(temperature, rng=SeededRng(0))
    drafts = [draft for draft, _ in decoder.drafts(PROMPT, sampling=sampling)]
    assert len({draft.tree for draft in drafts}) > 5
    for draft in drafts:
        assert all(len({draft.tokens[c] for c in below}) == len(below) for below in draft.tree.children)
