"""A process that forks after it loaded a model: what the child can do, and what it is told."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable

import pytest
from doubles.requests import PROMPT
from doubles.toy_bundle import Slow, ToyBackend

from specc.runtime.model import Model

pytestmark = [
    pytest.mark.process,
    pytest.mark.filterwarnings("ignore:requests take turns"),
    pytest.mark.skipif("not hasattr(os, 'register_at_fork')", reason="this system has no forks"),
]
SECONDS = 20  # after which a child that hangs is ended


def in_child(*uses: Callable[[], object]) -> list[str]:
    """Fork, and return what each use gives in the child, or its error."""
    reader, writer = os.pipe()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # Threads run, on purpose.
        child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(SECONDS)
        lines = []
        for use in uses:
            try:
                lines.append(str(use()))
            except BaseException as e:
                lines.append(f"{type(e).__name__}: {e}")
        os.write(writer, "\n".join(lines).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        lines = file.read().split("\n")
    assert os.waitpid(child, 0)[1] == 0, "the child hung"
    return lines


def test_the_child_of_a_fork_while_requests_run_is_told_to_load_the_model_again(
    load: Callable[..., Model], backend: ToyBackend
) -> None:
    """Also whoever waits for a request of the parent, and whoever closes the model."""
    backend.model = Slow
    model = load(running=1)
    session = model.session()
    handles = [model.submit(PROMPT, 60, ignore_eos=True) for _ in range(2)]
    limit = time.monotonic() + 30
    while not handles[0].token_ids:
        assert time.monotonic() < limit
        time.sleep(0.001)
    *lines, cancel, close = in_child(
        lambda: model.submit(PROMPT, 4).result(10),
        lambda: model.generate(PROMPT, 4),
        lambda: session.generate(PROMPT, 4),
        *[handle.result for handle in handles],
        lambda: next(handles[1]),
        *(handles[0].cancel, model.close),
    )
    message = "SpeccError: this model was loaded before a fork, at which a thread was using it; load it again"
    assert [line for line in lines if not line.startswith(message)] == [] and cancel == close == "None"
    assert [len(handle.result(60).token_ids) for handle in handles] == [60, 60], "the parent goes on"


def test_the_child_of_a_fork_while_a_step_runs_is_told_so_too(load: Callable[..., Model]) -> None:
    model = load()
    with model.shared.lock:  # as a thread that generates has it
        (line,) = in_child(lambda: model.generate(PROMPT, 4))
    assert line.startswith("SpeccError: this model was loaded before a fork")


def test_the_child_of_a_fork_while_nothing_runs_has_a_model_of_its_own(load: Callable[..., Model]) -> None:
    model = load()
    expected = model.submit(PROMPT, 8, ignore_eos=True).result(60).text
    limit = time.monotonic() + 30
    while model._scheduler._thread is not None:
        assert time.monotonic() < limit
        time.sleep(0.001)
    texts = in_child(
        lambda: repr(model.generate(PROMPT, 8, ignore_eos=True).text),
        lambda: repr(model.submit(PROMPT, 8, ignore_eos=True).result(10).text),
    )
    assert texts == [repr(expected)] * 2
