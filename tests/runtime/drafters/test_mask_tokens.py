"""Chains that the model without its middle layers guesses in one call."""

from __future__ import annotations

import numpy as np
import pytest
from toys import World, prompts, propose

from specc.runtime.block import Block
from specc.runtime.drafters.mask_tokens import MaskTokens
from specc.runtime.errors import RecipeError
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence
from specc.runtime.tree import Tree

PROMPT = prompts(3)[2]


def test_a_draft_takes_one_call_and_has_a_token_of_each_slot() -> None:
    method = World().method("s3d")
    engine = method.drafter.engine
    for draft, calls in method.drafts(PROMPT, steps=30):
        assert calls == 1 and len(draft.tokens) == 1 + engine.slots
        assert list(draft.tokens[1:]) == list(engine.outputs.ids_N)


def test_a_draft_ends_before_a_guess_of_little_probability() -> None:
    lengths = {}
    for threshold in (0.0, 0.6, 1.0):
        decoder = World().method("s3d", assistant_confidence_threshold=threshold)
        lengths[threshold] = [draft.tree.slots - 1 for draft, _ in decoder.drafts(PROMPT, steps=30)]
    assert set(lengths[0.0]) == {4} and set(lengths[1.0]) == {0}
    assert 0 < sum(lengths[0.6]) < sum(lengths[0.0])


def test_a_request_that_ends_soon_gets_a_short_draft_and_one_that_ends_none() -> None:
    method = World().method("s3d")
    for left in (1, 2, 4):
        seq = Sequence(list(PROMPT), method.world.caches, Sampling(), limit=len(PROMPT) + left)
        method.world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
        assert len(propose(method.drafter.open(seq)).tokens) == left


def test_sampled_drafts_state_the_distributions_that_they_were_drawn_from() -> None:
    method = World().method("s3d", acceptance="speculative")
    sampling = Sampling(temperature=1.0, rng=SeededRng(3))
    for draft, _ in method.drafts(PROMPT, steps=10, sampling=sampling):
        assert sorted(draft.probs) == [0, 1, 2, 3]
        for slot in draft.probs:
            row = method.drafter.engine.outputs.logits_NV[slot]
            np.testing.assert_allclose(draft.probs[slot], sampling.probs(row), atol=1e-6)


def test_an_engine_without_guesses_is_refused() -> None:
    with pytest.raises(RecipeError, match="engine target has no slots for guesses; compile the bundle again"):
        MaskTokens(World().engine(Block(Tree.chain(1))))
