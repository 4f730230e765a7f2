"""The sampling defaults of a model: where they apply, and what a user is told of them."""

from __future__ import annotations

from typing import Any

import pytest

from specc.runtime.sampling_defaults import SamplingDefaults

GREEDY = {"temperature": 0.0, "top_p": 1.0, "top_k": 0}
LLAMA = {"do_sample": True, "temperature": 0.6, "top_p": 0.9}


@pytest.mark.parametrize(
    ("config", "passed", "expected"),
    [
        ({}, (None, None, None), GREEDY),
        ({}, (0.7, None, None), {**GREEDY, "temperature": 0.7}),
        (LLAMA, (None, None, None), {"temperature": 0.6, "top_p": 0.9, "top_k": 0}),
        (LLAMA, (1.5, None, 20), {"temperature": 1.5, "top_p": 0.9, "top_k": 20}),
        (LLAMA, (None, 1.0, None), {"temperature": 0.6, "top_p": 1.0, "top_k": 0}),
        (LLAMA, (0, None, None), {**GREEDY, "temperature": 0}),
        ({"do_sample": True}, (None, None, None), {**GREEDY, "temperature": 1.0}),
        ({"do_sample": True, "temperature": 0.0, "top_k": 5}, (None, None, None), GREEDY),
        ({"temperature": 0.6, "top_k": 5}, (None, None, None), GREEDY),
        ({"temperature": 0.6, "top_k": 5}, (0.3, None, None), {**GREEDY, "temperature": 0.3, "top_k": 5}),
    ],
)
def test_an_option_that_is_not_passed_takes_the_models_default(
    config: dict[str, Any], passed: tuple[Any, ...], expected: dict[str, Any]
) -> None:
    assert SamplingDefaults(config).resolve(*passed) == expected


@pytest.mark.parametrize(
    ("config", "passed", "expected"),
    [
        (LLAMA, (None, None, None), {"temperature": 0.6, "top_p": 0.9}),
        (LLAMA, (0.6, None, None), {"top_p": 0.9}),
        (LLAMA, (0.6, 0.9, None), {}),
        (LLAMA, (0, None, None), {}),
        ({"temperature": 0.6}, (None, None, None), {}),
        ({"do_sample": True}, (None, None, None), {"temperature": 1.0}),
        ({}, (0.8, None, None), {}),
    ],
)
def test_the_defaults_in_use_are_those_that_change_the_request(
    config: dict[str, Any], passed: tuple[Any, ...], expected: dict[str, Any]
) -> None:
    assert SamplingDefaults(config).in_use(*passed) == expected


def test_what_specc_does_not_apply_is_named() -> None:
    assert SamplingDefaults({**LLAMA, "top_k": 3, "repetition_penalty": 1.1}).not_applied == {"repetition_penalty": 1.1}
    assert SamplingDefaults(LLAMA).not_applied == {}
