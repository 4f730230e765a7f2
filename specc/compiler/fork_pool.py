"""Calls that need nothing but what this process holds, each made by a fork of it, several at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from itertools import islice
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from specc.runtime.errors import BackendError

T = TypeVar("T")


def call_each(
    calls: Sequence[Callable[[], T]], at_once: int, begin: Callable[[int], None],
    settle: Callable[[], object] = lambda: None,
) -> list[T]:  # fmt: skip
    """What each call returns, in order. What one raises is raised, and ends the others.

    begin: told of each call's place as it begins. settle: what a fork does before its call. The first call is made
    here, so that the forks find loaded what it loads; what the others do to this process's data is lost with them.
    Raises BackendError where a fork is killed.
    """
    alone = at_once < 2 or "fork" not in get_all_start_methods()
    results: dict[int, T] = {}
    for number, call in enumerate(calls if alone else calls[:1]):
        begin(number)
        results[number] = call()
    waiting = islice(enumerate(calls), len(results), None)
    running: dict[Any, tuple[int, BaseProcess]] = {}  # by the end of the pipe that is read
    try:
        while True:
            for number, call in islice(waiting, at_once - len(running)):
                begin(number)
                pipe, process = _fork(call, settle)
                running[pipe] = number, process
            if not running:
                return [results[number] for number in range(len(calls))]
            for ready in wait(list(running)):
                number, process = running.pop(ready)
                results[number] = _answer(ready, process)
    finally:
        for _, process in running.values():
            process.kill()


def _fork(call: Callable[[], Any], settle: Callable[[], object]) -> tuple[Connection, BaseProcess]:
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(call, settle, theirs))
    process.start()
    theirs.close()
    return ours, process


def _run(call: Callable[[], Any], settle: Callable[[], object], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    try:
        settle()
        answer = True, call()
    except Exception as e:
        answer = False, e
    pipe.send(answer)


def _answer(pipe: Any, process: BaseProcess) -> Any:
    try:
        fine, answer = pipe.recv()
    except EOFError:
        process.join()
        raise BackendError(
            f"a process that built an engine ended with status {process.exitcode}; if memory is short, "
            "SPECC_THREADS=1 builds one engine at a time"
        ) from None
    process.join()
    if not fine:
        raise answer
    return answer
