"""Steps of one request: its prompt in parts, then drafts, and rows that others used meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from doubles.requests import PROMPT

from specc.runtime.call import finish
from specc.runtime.decoder import Decoder, StepLimits
from specc.runtime.errors import PromptError, RecipeError
from specc.runtime.model import Model
from specc.runtime.session import Session

OPTIONS: dict[str, Any] = {"recipe": "prompt-lookup", "ignore_eos": True}


def decoder(session: Session, prompt: Any = PROMPT) -> Decoder:
    """Return the decoder of a request that has not begun."""
    steps = session.stream(prompt, 40, **OPTIONS).decoder
    assert steps is not None
    return steps


def step(steps: Decoder, **limits: int) -> list[int]:
    """Take a step alone."""
    return finish(steps.step(StepLimits(**limits)))


@pytest.mark.parametrize("prompt_tokens", [1, 4, 100])
def test_a_prompt_is_read_in_parts(toy_model: Model, prompt_tokens: int) -> None:
    """As many tokens a step as it may, at most as many as the engine has slots."""
    prompt = list(range(1, 91))
    expected = toy_model.generate(prompt, 40, **OPTIONS).token_ids
    toy_model.conversation.cache.sync([])  # So that nothing is copied.
    steps, tokens, reads = decoder(toy_model.session(), prompt), list[int](), 0
    while len(tokens) < 40:
        reads += steps.reads
        tokens += step(steps, prompt_tokens=prompt_tokens)
    assert tokens[:40] == expected
    assert reads == {1: 90, 4: 23, 100: 2}[prompt_tokens]


def test_a_step_drafts_no_more_than_it_may(toy_model: Model) -> None:
    expected = toy_model.generate(PROMPT, 40, **OPTIONS).token_ids
    lengths = {}
    for most in (0, 2, 100):
        steps, tokens = decoder(toy_model.session()), list[int]()
        while len(tokens) < 40:
            tokens += step(steps, draft_tokens=most)
        assert tokens[:40] == expected
        stats = steps.decoding.stats
        lengths[most] = stats.drafted / max(1, stats.drafts)
    assert lengths[0] == 0 < lengths[2] <= 2 < lengths[100]


def test_rows_that_another_text_took_are_computed_anew(toy_model: Model) -> None:
    """The first step after that gives no token."""
    session, other = toy_model.session(), toy_model.session()
    expected = toy_model.generate(PROMPT, 40, **OPTIONS).token_ids
    steps, tokens = decoder(session), list[int]()
    while len(tokens) < 10:
        tokens += steps.advance()
    other.lane = session.lane
    other.generate("another text", 4, **OPTIONS)
    assert steps.advance() == []
    while len(tokens) < 40:
        tokens += steps.advance()
    assert tokens[:40] == expected


def test_runs_that_read_the_prompt_do_not_count(load: Callable[..., Model]) -> None:
    steps = decoder(load().session(), list(range(1, 91)))
    while steps.reads:
        steps.advance()
    stats = steps.decoding.stats
    assert (stats.calls, stats.engine_seconds, stats.prefill_seconds > 0) == (0, 0.0, True)
    steps.advance()
    assert (stats.calls, stats.target_calls) == (1, 1)


def fails(error: Exception) -> Callable[..., Any]:
    """Return a function that raises an error, whatever it gets."""

    def fail(*_: Any) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("error", [TypeError("no"), KeyError("no"), AssertionError(), ZeroDivisionError("no")])
def test_what_python_raises_in_a_step_is_one_line_that_names_the_drafter_or_the_rule(
    toy_model: Model, error: Exception
) -> None:
    """Whoever raised it."""
    steps = decoder(toy_model.session())
    step(steps)
    steps.decoding.drafting.observe = fails(error)  # type: ignore[method-assign]
    with pytest.raises(RecipeError, match=f"^the drafter prompt-lookup .*{type(error).__name__}.*; decode by") as e:
        step(steps)
    assert e.value.__cause__ is error
    steps = decoder(toy_model.session())
    step(steps)
    accept = fails(error)
    accept.__name__ = "best_of_three"
    steps.decoding.accept = accept  # type: ignore[assignment]
    with pytest.raises(RecipeError, match=f"^acceptance best_of_three .*{type(error).__name__}.*; take another") as e:
        step(steps)
    assert e.value.__cause__ is error


@pytest.mark.parametrize("part", ["rule", "drafter"])
def test_an_error_of_ours_passes_a_step_as_it_is(toy_model: Model, part: str) -> None:
    ours = PromptError("no token is left")
    steps = decoder(toy_model.session())
    step(steps)
    if part == "rule":
        steps.decoding.accept = fails(ours)  # type: ignore[assignment]
    else:
        steps.decoding.drafting.observe = fails(ours)  # type: ignore[method-assign]
    with pytest.raises(PromptError) as e:
        step(steps)
    assert e.value is ours
