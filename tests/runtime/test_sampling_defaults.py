"""The defaults of a model for the choice of tokens: where they apply, and what a user is told of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from specc.runtime.sampling_defaults import PLAIN_GREEDY, PROCESSORS, SAMPLING, SamplingDefaults

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
LLAMA = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}
PENALTIES = {"repetition_penalty": 1.1, "min_new_tokens": 3, "bad_words_ids": [[4], [5, 6]]}


@pytest.mark.parametrize(
    ("config", "passed", "expected"),
    [
        ({}, (None, None, None), GREEDY),
        ({}, (0.7, None, None), {**GREEDY, "temperature": 0.7}),
        (LLAMA, (None, None, None), {**GREEDY, "temperature": 0.6, "top_p": 0.9}),
        (LLAMA, (1.5, None, 20), {**GREEDY, "temperature": 1.5, "top_p": 0.9, "top_k": 20}),
        (LLAMA, (None, 1.0, None), {**GREEDY, "temperature": 0.6}),
        (LLAMA, (0, None, None), {**GREEDY, "temperature": 0}),
        ({"do_sample": True}, (None, None, None), {**GREEDY, "temperature": 1.0}),
        ({"do_sample": True, "temperature": 0.0, "top_k": 5}, (None, None, None), GREEDY),
        ({"temperature": 0.6, "top_k": 5}, (None, None, None), GREEDY),
        ({"temperature": 0.6, "top_k": 5}, (0.3, None, None), {**GREEDY, "temperature": 0.3, "top_k": 5}),
        ({**LLAMA, "min_p": 0.05}, (None, 1.0, None), {**GREEDY, "temperature": 0.6, "min_p": 0.05}),
        ({"min_p": 0.05}, (None, None, None), GREEDY),
    ],
)
def test_an_option_that_is_not_passed_takes_the_models_default(
    config: dict[str, Any], passed: tuple[Any, ...], expected: dict[str, Any]
) -> None:
    names = ("temperature", "top_p", "top_k")
    assert SamplingDefaults(config).sampling(**dict(zip(names, passed, strict=True))) == expected


def test_a_least_share_that_is_passed_counts() -> None:
    defaults = SamplingDefaults({**LLAMA, "min_p": 0.05})
    assert defaults.sampling(min_p=0.2)["min_p"] == 0.2 and defaults.sampling(min_p=0.0)["min_p"] == 0.0


def test_processors_take_the_models_defaults_at_any_temperature() -> None:
    defaults = SamplingDefaults({**PENALTIES, "temperature": 0.6})
    expected = {"repetition_penalty": 1.1, "min_new_tokens": 3, "bad_words": [[4], [5, 6]]}
    assert defaults.processors() == expected
    assert defaults.processors(repetition_penalty=None) == expected
    assert defaults.processors(repetition_penalty=1.0, bad_words=()) == {
        "repetition_penalty": 1.0,
        "min_new_tokens": 3,
        "bad_words": (),
    }
    assert SamplingDefaults({}).processors() == PROCESSORS


@pytest.mark.parametrize(
    ("config", "passed", "expected"),
    [
        (LLAMA, {}, {"temperature": 0.6, "top_p": 0.9}),
        (LLAMA, {"temperature": 0.6}, {"top_p": 0.9}),
        (LLAMA, {"temperature": 0.6, "top_p": 0.9}, {}),
        (LLAMA, {"temperature": 0}, {}),
        ({"temperature": 0.6}, {}, {}),
        ({"do_sample": True}, {}, {"temperature": 1.0}),
        ({}, {"temperature": 0.8}, {}),
        ({**LLAMA, "min_p": 0.1}, {"temperature": 0.6, "top_p": 1.0}, {"min_p": 0.1}),
        (PENALTIES, {}, {"repetition_penalty": 1.1, "bad_words": [[4], [5, 6]], "min_new_tokens": 3}),
        (PENALTIES, {"temperature": 0.7, "bad_words": ()}, {"repetition_penalty": 1.1, "min_new_tokens": 3}),
        ({"repetition_penalty": 1.0}, {}, {}),
    ],
)
def test_the_defaults_in_use_are_those_that_change_the_request(
    config: dict[str, Any], passed: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert SamplingDefaults(config).in_use({"recipe": "plain", **passed}) == expected


def test_what_specc_does_not_apply_is_named() -> None:
    config = {**LLAMA, **PENALTIES, "top_k": 3, "min_p": 0.1, "no_repeat_ngram_size": 2}
    assert SamplingDefaults(config).not_applied == {"no_repeat_ngram_size": 2}
    assert SamplingDefaults(LLAMA).not_applied == {}


def test_plain_greedy_turns_every_default_off() -> None:
    defaults = SamplingDefaults({**LLAMA, **PENALTIES, "min_p": 0.1, "top_k": 5})
    sampling = {name: PLAIN_GREEDY.get(name) for name in SAMPLING}
    processors = {name: PLAIN_GREEDY.get(name) for name in PROCESSORS}
    assert defaults.sampling(**sampling) == GREEDY
    assert defaults.processors(**processors) == PROCESSORS


@pytest.mark.parametrize("temperature", [np.array([1, 2]), [0]])
def test_a_temperature_that_is_no_number_is_passed_on_to_the_check(temperature: Any) -> None:
    assert SamplingDefaults({}).sampling(temperature=temperature)["temperature"] is temperature
