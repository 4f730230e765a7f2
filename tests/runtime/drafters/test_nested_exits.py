"""S2D: each token takes the first exit that is sure."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import LAYERS, Decoder, World, prompts, step

from specc.runtime.drafters.nested_exits import NestedExits
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Sequence

PROMPTS = prompts(8, seed=4)


def s2d(threshold: float, exits: tuple[int, ...] = (1, 2, 4)) -> Decoder:
    return World().method("s2d", assistant=True, exits=exits, exit_threshold=threshold, num_speculative_tokens=4)


def shares(threshold: float) -> list[float]:
    """Return the share of tokens that each exit drafted after the first one of a draft."""
    decoder, counts = s2d(threshold), np.zeros(3)
    for prompt in PROMPTS:
        seq = Sequence(list(prompt), decoder.world.caches)
        request = decoder.open(seq)
        decoder.world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
        drafting: Any = request.drafting
        for _ in range(12):
            draft, _ = step(request)
            if draft.tree.slots > 1:
                counts[2] -= 1  # its first token
        counts += drafting.counts
    return [float(share) for share in counts / counts.sum()]


def test_the_mean_exit_of_s2d_is_not_the_deepest_and_rises_with_the_threshold() -> None:
    means = [float(np.dot(shares(threshold), (1, 2, 4))) for threshold in (0.0, 0.5, 1.0)]
    assert means[0] == 1 < means[1] < means[2] == 4


def test_deeper_exits_of_the_target_itself_are_right_more_often() -> None:
    """The toy's layers are hashes, so only its last one says what the target says: a draft by all layers is right."""
    rates = {}
    for exits in ((1,), (LAYERS,)):
        decoder = World().method("s2d", assistant=True, exits=exits, num_speculative_tokens=3)
        target: Any = decoder.world.prefill.runner
        for engine in (*decoder.drafter.exits, decoder.drafter.prefill):  # The draft model is the target.
            engine.runner.embedding_V = target.embedding_V
        rates[exits] = sum(decoder.run(prompt, 60)[1] for prompt in PROMPTS[:4])
    assert rates[LAYERS,] > rates[1,] and rates[LAYERS,] == 4 * 45


def test_one_draft_model_serves_two_targets() -> None:
    """Of other layers and rows: the tokens are each target's own."""
    for vocabulary in (24, 12):
        text = [token % vocabulary for token in PROMPTS[2]]
        tokens = World(vocabulary).method("s2d", assistant=True, exits=(1, 3)).run(text, 60)[0]
        assert tokens == World(vocabulary).method("plain").run(text, 60)[0]


def test_the_rows_of_a_draft_are_those_of_the_tokens_that_ran() -> None:
    """After a step, what the deepest exit committed equals a fresh run of it."""
    decoder = s2d(0.5)
    decoder.run(PROMPTS[1], 60)
    cache, reference = decoder.world.caches["assistant"], World()
    engine = reference.engine(decoder.drafter.engine.block)
    engine.extend(reference.caches["assistant"], cache.tokens)
    rows, right = (world.stores["assistant"].rows_LC[:, : len(cache)] for world in (decoder.world, reference))
    assert np.array_equal(rows, right)


def test_one_exit_drafts_a_token_by_one_call_of_one_slot() -> None:
    """Nobody is left to ask again, so the threshold does not count, and only the first token takes a wide call."""
    for threshold in (0.0, 1.0):
        decoder = s2d(threshold, exits=(LAYERS,))
        narrow, wide = decoder.drafter.exits
        assert (narrow.slots, wide.slots) == (1, 5)
        for prompt in PROMPTS[:2]:
            tokens = decoder.run(prompt, 40)[0]
            assert tokens == World().method("plain").run(prompt, 40)[0]
        assert 2 * wide.calls < narrow.calls


def test_exits_that_the_draft_model_does_not_have_are_refused() -> None:
    for exits, message in (((2, 1), "give rising numbers from 1 to 4"), ((5,), "give rising numbers"), ([], "such as")):
        with pytest.raises(RecipeError, match=message):
            World().method("s2d", assistant=True, exits=exits)
    with pytest.raises(RecipeError, match="the recipe has no exits"):
        NestedExits(World().prefill)
