"""FastCoT: guesses that stand where the reasoning ends are kept, and a text that asks for the answer follows."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from toys import World, prompts, step

from specc.runtime.drafters.fast_cot import FastCot
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Sequence

ANSWER, STEPS, VOCABULARY = [7, 3, 7], 6, 8
PROMPTS = prompts(6, seed=1, vocabulary=VOCABULARY)


class Reasoning(NamedTuple):
    """The text of a request up to the token after the question for the answer.

    Attributes:
        verified: the tokens of the reasoning that were verified.
        guessed: those that were not.
        passes: the target's passes up to the end of the reasoning.
        answer: the first token of the answer.
    """

    verified: list[int]
    guessed: list[int]
    passes: int
    answer: int


def reason(prompt: list[int], **values: Any) -> Reasoning:
    """Decode until the answer begins."""
    options: dict[str, Any] = {"reasoning_steps": STEPS, "answer_tokens": ANSWER, "confidence_threshold": 0.0} | values
    decoder = World(VOCABULARY).method("fastcot", **options)
    seq = Sequence(list(prompt), decoder.world.caches)
    decoder.world.prefill.extend(seq.cache, prompt[:-1])
    request = decoder.open(seq)
    drafting: Any = request.drafting
    while drafting.reasons:
        before = len(seq.tokens)
        step(request)
        assert drafting.steps < 200
    end = len(seq.tokens) - 1 - len(ANSWER)
    assert seq.tokens[end:-1] == ANSWER
    return Reasoning(seq.tokens[len(prompt) : before], seq.tokens[before:end], drafting.steps, seq.tokens[-1])


def after(text: list[int], count: int) -> list[int]:
    """Return what plain decoding says after a text."""
    return World(VOCABULARY).method("plain").run(text, count)[0]


def test_fastcot_saves_passes_and_the_answer_after_guessed_reasoning_is_often_that_after_plain_decoding() -> None:
    """The honest test of methods.md: 20 items, the passes saved, and how often the answers agree, below 100 %."""
    passes, tokens, agreeing = 0, 0, 0
    for prompt in prompts(20, vocabulary=VOCABULARY):
        own = reason(prompt)
        length = len(own.verified) + len(own.guessed)
        assert own.passes == STEPS + 1 and 1 <= len(own.guessed) <= 5
        rationale = after(prompt, length)
        assert rationale[: len(own.verified)] == own.verified
        assert own.answer == after([*prompt, *own.verified, *own.guessed, *ANSWER], 1)[0]
        passes, tokens = passes + own.passes, tokens + length
        agreeing += own.answer == after([*prompt, *rationale, *ANSWER], 1)[0]
    assert passes < 0.8 * tokens
    assert 5 <= agreeing < 20


def test_the_reasoning_goes_on_until_all_guesses_are_likely_enough() -> None:
    lengths = {
        threshold: [reason(p, confidence_threshold=threshold).passes for p in PROMPTS] for threshold in (0.0, 0.5)
    }
    assert set(lengths[0.0]) == {STEPS + 1} and min(lengths[0.5]) > STEPS and max(lengths[0.5]) > STEPS + 1


def test_with_a_threshold_of_one_the_reasoning_never_ends() -> None:
    """The setting at which the lossy recipe is lossless."""
    for prompt in PROMPTS:
        method = World(VOCABULARY).method(
            "fastcot", confidence_threshold=1, reasoning_steps=STEPS, answer_tokens=ANSWER
        )
        assert method.run(prompt, 60)[0] == after(prompt, 60)


def test_the_answer_is_asked_for_only_where_it_has_room() -> None:
    drafter = FastCot(2, VOCABULARY, 1, ANSWER, 0.0, keep_logits=True)
    world = World(VOCABULARY)
    decoder = world.method("fastcot", reasoning_steps=1, answer_tokens=ANSWER, num_speculative_tokens=2)
    decoder.drafter = drafter
    prompt = PROMPTS[1]
    seq = Sequence(list(prompt), world.caches, limit=len(prompt) + 6)
    world.prefill.extend(seq.cache, prompt[:-1])
    request = decoder.open(seq)
    drafting: Any = request.drafting
    while len(seq.tokens) < len(prompt) + 6:
        step(request)
    assert drafting.reasons and seq.tokens[len(prompt) :][:6] == after(prompt, 6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"answer_tokens": "now"}, "answer_tokens is 'now'; give token ids from 0 to 7, such as"),
        ({"answer_tokens": [8]}, r"answer_tokens is \[8\]; give token ids from 0 to 7"),
        ({"reasoning_steps": -1}, "reasoning_steps is -1; give a whole number from 0 to"),
        ({"confidence_threshold": 2}, "confidence_threshold is 2; give a number from 0 to 1"),
    ],
)
def test_parameters_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        FastCot(2, VOCABULARY, **arguments)
