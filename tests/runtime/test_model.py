"""A model over toys: what it serves from any thread, and how it is closed."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles.toy_bundle import Slow, ToyBackend

from specc.runtime.bundle import open_bundle
from specc.runtime.errors import SpeccError
from specc.runtime.handle import Handle
from specc.runtime.model import Model

PROMPT = "the quick brown fox"
PROMPTS = [f"{PROMPT} {number}" for number in range(6)]
CLOSED = r"this model is closed; open another with specc\.load"


def stalled(handle: Handle, running: bool | None = None) -> None:
    """Wait until a request is ahead of its reader as far as it may be, with caches or without if that is said."""
    limit = time.monotonic() + 30
    request = handle.submission
    while not request.paused or (running is not None and request.running != running):
        assert time.monotonic() < limit, "the request goes on"
        time.sleep(0.001)


def test_coroutines_read_handles_and_streams(toy_model: Model) -> None:
    expected = [toy_model.generate(prompt, 30, ignore_eos=True).text for prompt in PROMPTS]

    async def read(prompt: str, submitted: bool) -> str:
        source = toy_model.submit(prompt, 30, ignore_eos=True) if submitted else toy_model.session().stream(prompt, 30)
        return "".join([piece async for piece in source])

    async def read_all() -> list[str]:
        return await asyncio.gather(*(read(prompt, submitted) for submitted in (True, False) for prompt in PROMPTS))

    assert asyncio.run(asyncio.wait_for(read_all(), 60)) == expected * 2


def test_a_closed_model_says_so_to_everybody(load: Callable[..., Model], backend: ToyBackend) -> None:
    """To later uses, to streams and requests that had not ended, and to those that wait or pause."""
    backend.model = Slow
    model = load(running=2, pieces=3)
    session = model.session()
    stream = model.stream(PROMPT, 100, ignore_eos=True)
    next(stream)
    handles = [model.submit(PROMPT, 100, ignore_eos=True) for _ in range(6)]
    stalled(handles[0])
    with model:
        pass
    uses: list[Callable[[], object]] = [
        lambda: model.generate(PROMPT, 4),
        lambda: list(stream),
        lambda: session.generate(PROMPT, 4),
        model.session,
        lambda: model.submit(PROMPT, 4),
        lambda: model.engines["decode"],
        *[handle.result for handle in handles],
    ]
    for use in uses:
        with pytest.raises(SpeccError, match=CLOSED):
            use()
    assert {handle.finish_reason for handle in handles} == {"error"}
    model.close()


def test_closing_a_model_frees_its_engines_and_rows(toy_model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are gone when memory is given back."""
    handle = toy_model.submit(PROMPT, 4)
    handle.result(60)
    other = toy_model.session()
    other.generate(PROMPT, 4)
    references: list[weakref.ref[Any]] = [
        weakref.ref(toy_model.engines["decode"]),
        weakref.ref(toy_model.conversation.cache.store),
        weakref.ref(other.cache.store),
    ]
    alive: list[object] = []
    monkeypatch.setattr("specc.runtime.shared.trim", lambda: alive.extend(ref() for ref in references))
    toy_model.close()
    assert alive == [None] * 3


def test_loading_a_model_gives_memory_back_once_its_tokenizer_is_read(
    load: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr("specc.runtime.text.tokenizer_file.check", lambda data: events.append("read"))
    monkeypatch.setattr("specc.runtime.shared.trim", lambda: events.append("trim"))
    Model(open_bundle(tmp_path / "toy.specc"))
    assert events == ["read", "trim"]


def test_a_model_that_nobody_refers_to_is_freed_without_the_collector(
    load: Callable[..., Model], tmp_path: Path
) -> None:
    model = Model(open_bundle(tmp_path / "toy.specc"))
    model.generate(PROMPT, 4)
    engine = weakref.ref(model.engines["decode"])
    gc.collect()
    gc.disable()
    try:
        del model
        assert engine() is None
    finally:
        gc.enable()
