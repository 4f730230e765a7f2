"""Handles: what the reader of a submitted request sees."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable

import pytest
from doubles.requests import PROMPT, stalled
from doubles.toy_bundle import Slow, ToyBackend

from specc.runtime.model import Model


def test_a_handle_is_an_iterator_over_text(toy_model: Model) -> None:
    answer = toy_model.generate(PROMPT, 40, ignore_eos=True)
    pieces = list(toy_model.submit(PROMPT, 40, ignore_eos=True))
    assert "".join(pieces) == answer.text and len(pieces) > 10
    end = answer.text[20:30]
    handle = toy_model.submit(PROMPT, 40, stop=end, ignore_eos=True)
    assert "".join(handle) == answer.text.partition(end)[0]
    assert (handle.finish_reason, handle.result().stop_reason) == ("stop", end)


def test_what_was_read_before_is_a_part_of_the_result(toy_model: Model) -> None:
    handle = toy_model.submit(PROMPT, 40, ignore_eos=True)
    first = next(handle)
    answer = handle.result(60)
    assert answer.text.startswith(first)
    assert first + "".join(handle) == answer.text


def test_a_request_that_is_ahead_of_its_reader_pauses(load: Callable[..., Model]) -> None:
    model = load(pieces=4)
    handle = model.submit(PROMPT, 60, ignore_eos=True)
    stalled(handle)
    tokens = len(handle.token_ids)
    assert 4 <= tokens < 40
    time.sleep(0.05)
    assert len(handle.token_ids) == tokens
    assert "".join(handle) == model.generate(PROMPT, 60, ignore_eos=True).text


def test_waiting_has_an_end_if_one_is_set(load: Callable[..., Model], backend: ToyBackend) -> None:
    backend.model = Slow
    handle = load().submit(PROMPT, 200, ignore_eos=True)
    with pytest.raises(TimeoutError, match=r"not whole after 0\.01 s"):
        handle.result(0.01)
    assert handle.result(60).stats.new_tokens == 200


def test_a_handle_says_which_recipe_runs_and_how_far_it_is(load: Callable[..., Model], backend: ToyBackend) -> None:
    backend.model = Slow
    model = load(running=1, pieces=2)
    first, second = (model.submit(PROMPT, 40, recipe="plain", ignore_eos=True) for _ in range(2))
    assert repr(second) == "<Handle: recipe plain, waiting, 0 tokens>"
    stalled(first)
    assert re.fullmatch(r"<Handle: recipe plain, paused, [2-9] tokens>", repr(first))
    first.result(60)
    assert repr(first) == "<Handle: recipe plain, length, 40 tokens>"
    stalled(second)
    second.cancel()
    second.result(60)
    assert second.state == second.finish_reason == "cancelled"


def test_the_end_of_a_block_cancels_the_request(load: Callable[..., Model], backend: ToyBackend) -> None:
    backend.model = Slow
    model = load()
    with model.submit(PROMPT, 200, ignore_eos=True) as handle:
        next(handle)
    assert handle.result(10).finish_reason == "cancelled"

    async def read_one() -> None:
        async with model.submit(PROMPT, 200, ignore_eos=True) as other:
            async for _ in other:
                break
        assert other.result(10).finish_reason == "cancelled"

    asyncio.run(asyncio.wait_for(read_one(), 60))
