"""Drafts that an engine grows: what a draft costs, how far it goes, and what it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from toys import World, prompts

from specc.runtime.sampling import Sampling, SeededRng
from specc.runtime.sequence import Cache, Sequence

PROMPT = prompts(3)[2]


def drafts(decoder, temperature: float = 0.0, steps: int = 40):
    """The drafts of a run, each with the calls of the draft engine that it took."""
    seq = Sequence(list(PROMPT), decoder.world.cache, Sampling(temperature, rng=SeededRng(0)))
    calls = decoder.drafter.engine.calls
    for (draft, _), _ in zip(decoder.steps(seq), range(steps), strict=False):
        yield draft, decoder.drafter.engine.calls - calls
        calls = decoder.drafter.engine.calls


@pytest.mark.parametrize("name", ["draft-model", "layer-skip"])
@pytest.mark.parametrize("count", [1, 3])
def test_a_chain_costs_a_call_a_token(name, count):
    decoder = World().method(name, assistant=True, num_speculative_tokens=count)
    for draft, calls in list(drafts(decoder))[1:]:
        assert draft.tree.slots == 1 + count
        assert count <= calls <= count + 1  # a token accepted at the very end was not run yet


def test_a_draft_ends_after_a_token_of_little_confidence():
    decoder, lengths = World().method("layer-skip", num_speculative_tokens=4, assistant_confidence_threshold=0.5), set()
    for draft, calls in drafts(decoder):
        last = np.exp(decoder.drafter.engine.outputs.top_logprobs_NK[0, 0])
        assert calls == draft.tree.slots - 1 and (last < 0.5 or calls == 4)
        lengths.add(calls)
    assert lengths == {1, 2, 3, 4}


@pytest.mark.parametrize("assistant", [False, True])
def test_a_dynamic_tree_costs_a_call_a_layer(assistant):
    """The last layer is not run; what the last step accepted is read with the first."""
    decoder = World().method("dynamic-tree", assistant=assistant, num_speculative_tokens=9, max_depth=3)
    taken = list(drafts(decoder))[1:]
    assert max(calls for _, calls in taken) == 3
    assert all(calls == draft.tree.depth.max() and draft.tree.slots <= 10 for draft, calls in taken)


@pytest.mark.parametrize(("acceptance", "temperature"), [("match", 0.0), ("recursive", 1.0)])
def test_a_dynamic_tree_changes_its_shape_and_wastes_no_slot_on_a_token_twice(acceptance, temperature):
    decoder = World().method("dynamic-tree", acceptance=acceptance)
    taken = [draft for draft, _ in drafts(decoder, temperature)]
    assert len({draft.tree for draft in taken}) > 5
    for draft in taken:
        assert all(len({draft.tokens[c] for c in below}) == len(below) for below in draft.tree.children)


def test_an_early_exit_fills_its_tree_with_the_exits_likeliest_tokens():
    """Each slot's children, by rank, are what the exit says after the path to it."""
    world = World()
    decoder = world.method("early-exit")
    engine = decoder.drafter.engine
    seq = Sequence([*PROMPT, 3], world.cache)
    world.prefill.extend(seq.cache, seq.cache.sync(PROMPT))
    draft = decoder.drafter.propose(seq)
    for slot, below in enumerate(draft.tree.children):
        path = [draft.tokens[s] for s in np.flatnonzero(draft.tree.mask[slot])]
        row = engine.extend(Cache(seq.cache.store, seq.cache.tokens), path)
        assert [draft.tokens[c] for c in below] == list(engine.outputs.top_ids_NK[row][: len(below)])
