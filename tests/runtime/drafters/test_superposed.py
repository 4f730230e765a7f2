"""Superposed Decoding: several texts, one pass a token."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import World, prompts, write_corpus

from specc.runtime.call import finish
from specc.runtime.drafters.superposed import UNSEEN, Superposed
from specc.runtime.sequence import Sequence

PROMPT = prompts(1, seed=2)[0]


def opened(world: World, **values: Any) -> tuple[Superposed, Any]:
    """Return the drafter, and its drafting after the prompt."""
    decoder = world.method("superposed", **values)
    world.prefill.extend(world.cache, PROMPT[:-1])
    return decoder.drafter, decoder.drafter.open(Sequence(list(PROMPT), world.caches))


def test_superposed_decoding() -> None:
    """The test of the system: one pass a token whatever the number of texts, and its texts are likely to the model."""
    world = World()
    drafter, drafting = opened(world, suggestions=3)
    texts = finish(drafting.suggest(10))
    assert drafter.engine.calls == 10 and [len(text.tokens) for text in texts] == [10] * 3
    assert len({text.tokens for text in texts}) == 3
    assert [text.score for text in texts] == sorted((text.score for text in texts), reverse=True)
    rng = np.random.default_rng(0)
    noise = [tuple(rng.integers(world.vocabulary, size=10).tolist()) for _ in range(20)]
    assert max(logprob(text.tokens) for text in texts) > max(map(logprob, noise))


def logprob(tokens: tuple[int, ...]) -> float:
    """Return how likely the toy finds a text after the prompt, as a mean logarithm."""
    world = World()
    engine, total = world.method("plain").verifiers[0], 0.0
    world.prefill.extend(world.cache, PROMPT[:-1])
    for before, token in zip((PROMPT[-1], *tokens), tokens, strict=False):
        engine.extend(world.cache, [before])
        assert engine.outputs.logits_NV is not None
        logits_V = engine.outputs.logits_NV[0].astype(np.float64)
        total += float(logits_V[token] - np.log(np.exp(logits_V).sum()))
    return total / len(tokens)


def test_one_text_without_n_grams_is_greedy_decoding() -> None:
    _, drafting = opened(World(), suggestions=1, alpha=0)
    (text,) = finish(drafting.suggest(12))
    assert list(text.tokens) == World().method("plain").run(PROMPT, 12)[0]


def test_the_slot_reads_the_texts_by_their_probabilities() -> None:
    _, drafting = opened(World(), suggestions=3)
    call = drafting._call(4, [5, 7], [0.0, -log(3)])
    assert np.allclose(call.inputs["mixture"], np.array([[0.75, 0.25, 0], [0, 1, 0], [0, 0, 1]]))
    assert (call.rows, list(call.tokens)) == (4, [5, 7, 5])


def test_n_grams_say_which_token_goes_with_which_text(tmp_path: Path) -> None:
    corpus = write_corpus([1, 2, 3, 1, 2, 3, 5, 2, 4, 5, 2, 4], tmp_path)
    engine = World().method("superposed").drafter.engine
    drafter = Superposed(engine, corpus, 24, alpha=1.0)
    after = {text: drafter.scores([text, 2], [3, 4, 9], [-1.0, -1.0, -1.0]) for text in (1, 5)}
    assert after[1][0] > after[1][1] and after[5][1] > after[5][0]
    assert after[1][2] == after[5][2] == UNSEEN
    share = (0.01 * 2 / 4 + 0.04 * 1) / 0.05  # by the last token alone, and by the last two
    assert after[1][0] == pytest.approx(log(share))
    assert Superposed(engine, corpus, 24, alpha=0.0).scores([1, 2], [3, 4], [-1.0, -2.0]) == [-1.0, -2.0]


def test_texts_end_where_the_scratch_rows_do() -> None:
    _, drafting = opened(World(), suggestions=3)
    assert max(len(text.tokens) for text in finish(drafting.suggest(10**6))) == 128 - 2
