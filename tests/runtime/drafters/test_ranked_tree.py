"""Dynamic Depth Decoding: a beam that ends where it has little probability, ranked once more."""

from __future__ import annotations

import numpy as np
import pytest
from toys import Decoder, World, prompts

from specc.runtime.draft import Outputs
from specc.runtime.drafters.ranked_tree import Candidates

PROMPTS = prompts(4, seed=4)


def dynamic_depth(threshold: float, depths: tuple[int, ...] = (2, 3, 4)) -> Decoder:
    return World().method("dynamic-depth", assistant=True, max_depth=6, mass_threshold=threshold, mass_depths=depths)


def calls(decoder: Decoder) -> list[int]:
    return [count for prompt in PROMPTS for _, count in decoder.drafts(prompt, 10)]


def test_the_depth_of_dynamic_depth_varies_with_the_text() -> None:
    """A draft costs a call for its root and one for each level below, and its depth is at least the first that asks."""
    costs = calls(dynamic_depth(0.25))
    assert len(set(costs)) > 1 and np.mean(costs) < np.mean(calls(dynamic_depth(0.0)))


def test_dynamic_depth_accepts_more_for_each_call_than_a_fixed_depth() -> None:
    rates = {}
    for threshold in (0.0, 0.25):
        decoder = dynamic_depth(threshold)
        accepted = sum(decoder.run(prompt, 60)[1] for prompt in PROMPTS[:2])
        rates[threshold] = accepted / decoder.drafter.engine.calls
    assert rates[0.25] > rates[0.0]


def test_a_threshold_of_1_ends_at_the_first_depth_that_asks() -> None:
    assert max(calls(dynamic_depth(1.0, (2,)))) <= 2 + 1
    assert max(calls(dynamic_depth(1.0, ()))) > 3


def test_the_likeliest_nodes_are_drafted_with_their_parents() -> None:
    candidates = Candidates(7)
    probs = np.log(np.array([[0.6, 0.3], [0.9, 0.1]], np.float32))
    outputs = Outputs(np.zeros(2, np.int64).data, None, np.array([[1, 2], [3, 4]]), probs)
    candidates.add(0, outputs, 0)
    candidates.add(1, outputs, 1)
    assert candidates.reach == pytest.approx([1, 0.6, 0.3, 0.54, 0.06])
    draft = candidates.draft(2)
    assert (draft.tokens, draft.tree.parents) == ((7, 1, 3), (-1, 0, 1))
    assert candidates.draft(9).tokens == (7, 1, 2, 3, 4) and candidates.path(3) == [1, 3]
    assert candidates.best([1, 2, 3], 2) == [1, 3]


def test_a_draft_has_so_many_nodes_at_most() -> None:
    decoder = World().method("dynamic-depth", assistant=True, num_speculative_tokens=5)
    assert {draft.tree.slots for draft, _ in decoder.drafts(PROMPTS[0], 20)} <= set(range(1, 7))
