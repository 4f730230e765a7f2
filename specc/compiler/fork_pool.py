"""Calls made by forks of this process, several at once. A fork finds all that this process holds."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from specc.parent_process import end_with
from specc.runtime.errors import BackendError

T = TypeVar("T")


def call_each(
    calls: Sequence[Callable[[], T]],
    at_once: int,
    begin: Callable[[int], None],
    prepare: Callable[[], object] = lambda: None,
) -> list[T]:
    """Make each call and return the results in order.

    The first call is made in this process, so that forks find loaded what it loads. A fork's changes to data of this
    process are lost. With one call at once, or where a process cannot fork, all calls are made here.

    Args:
        calls: functions without arguments. Those made by forks return something that can be pickled.
        at_once: forks that run at once at most.
        begin: a function that is called here with each call's index as it begins.
        prepare: a function that each fork calls before its call.

    Raises:
        Exception: what a call raises. The other forks are ended.
        BackendError: a fork was killed.
    """
    can_fork = at_once > 1 and "fork" in get_all_start_methods()
    results: dict[int, T] = {}
    for number, call in enumerate(calls[:1] if can_fork else calls):
        begin(number)
        results[number] = call()
    waiting = list(range(len(results), len(calls)))
    running: dict[Connection, tuple[int, BaseProcess]] = {}  # by the end of the pipe that this process reads
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.pop(0)
                begin(number)
                pipe, process = _fork(calls[number], prepare)
                running[pipe] = number, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                number, process = running.pop(ready)
                results[number] = _result(ready, process)
    finally:
        for _, process in running.values():
            process.kill()
    return [results[number] for number in range(len(calls))]


def _fork(call: Callable[[], Any], prepare: Callable[[], object]) -> tuple[Connection, BaseProcess]:
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(os.getpid(), call, prepare, theirs))
    process.start()
    theirs.close()
    return ours, process


def _run(parent: int, call: Callable[[], Any], prepare: Callable[[], object], pipe: Connection) -> None:
    """Run in a fork: send whether the call succeeded, with its result or its exception. End if the parent does."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles an interrupt
    try:
        prepare()
        message = True, call()
    except Exception as e:
        message = False, e
    pipe.send(message)


def _result(pipe: Connection, process: BaseProcess) -> Any:
    try:
        succeeded, result = pipe.recv()
    except EOFError:
        process.join()
        raise BackendError(
            f"a process that built an engine ended with status {process.exitcode}; if memory is short, "
            "SPECC_THREADS=1 builds one engine at a time"
        ) from None
    process.join()
    if not succeeded:
        raise result
    return result
