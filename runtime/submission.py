"""A submission: a submitted request as the scheduler sees it."""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from dataclasses import dataclass, replace
from threading import TIMEOUT_MAX, Condition
from typing import TYPE_CHECKING

from .decoder import Decoder
from .errors import PromptError
from .prices import Progress
from .stream import Generation, Stream

if TYPE_CHECKING:
    import asyncio

    from .session import Session


@dataclass(frozen=True, kw_only=True)
class Task:
    """A request for the scheduler.

    Attributes:
        session: the conversation of this request alone.
        stream: the answer.
        priority: requests of a higher one begin first.
        deadline: the time, by `time.monotonic`, at which the request is cancelled; None if there is none.
    """

    session: Session
    stream: Stream
    priority: int = 0
    deadline: float | None = None


def seconds(name: str, value: float) -> float:
    """Return an option that is a time as a number that threads can wait for.

    Raises:
        PromptError: it is no number, or negative, or not finite.
    """
    if type(value) not in (int, float) or not 0 <= value < math.inf:
        raise PromptError(f"{name} is {value!r}; give seconds from 0 on, or None to wait for ever")
    return float(min(TIMEOUT_MAX, value))


class Submission:
    """A request between the scheduler, which adds text to it, and its reader, who takes the text by a `Handle`.

    The scheduler's methods expect that their caller holds the condition. Those of the reader take it themselves.

    Attributes:
        task: the request.
        stream: the answer.
        progress: how its drafts go.
        running: whether the request has caches.
        shares: whether others may use those caches meanwhile.
        finish_reason: `eos`, `stop`, `length`, `cancelled` or `error`; None while the answer goes on.
    """

    def __init__(self, task: Task, work: Condition, news: Condition, bound: int) -> None:
        """Begin to wait.

        Args:
            task: the request.
            work: the scheduler's condition, by which it learns that a request may go on.
            news: a condition of this request, over the same lock.
            bound: pieces that may wait for the reader.
        """
        self.task, self.stream = task, task.stream
        self.progress = Progress()
        self.running, self.shares = False, False
        self.finish_reason: str | None = None
        self._bound, self._work, self._news = bound, work, news
        self._pieces: deque[str] = deque()
        self._text: list[str] = []
        self._error: BaseException | None = None
        self._cancelled, self._drained = False, False
        self._sleepers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    # For the scheduler.

    @property
    def cancelled(self) -> bool:
        """Tell whether somebody cancelled the request, or its deadline has passed."""
        deadline = self.task.deadline
        return self._cancelled or (deadline is not None and time.monotonic() >= deadline)

    @property
    def paused(self) -> bool:
        """Tell whether the request waits for its reader."""
        return len(self._pieces) >= self._bound and not self._drained and not self._cancelled

    def unpause(self) -> None:
        """Never pause again, whether somebody reads or not."""
        self._drained = True

    @property
    def decoder(self) -> Decoder:
        """The decoder, which takes the steps of the request. A request that has ended has none."""
        assert self.stream.decoder is not None
        return self.stream.decoder

    def charge(self, seconds: float) -> None:
        """Count a run of an engine for the step under way."""
        self.decoder.charge(seconds)
        self.progress.charge(seconds)

    def put(self, pieces: list[str]) -> None:
        """Add pieces of text."""
        self._pieces += pieces
        self._text += pieces
        self._notify()

    def end(self, reason: str, error: BaseException | None = None) -> None:
        """End the request."""
        self.finish_reason, self._error = reason, error
        self.stream.stop()
        self._notify()

    def lose(self, error: Exception) -> None:
        """End the request in the child of a fork. A thread of the parent may hold the conditions: it gets others."""
        self._work = self._news = Condition()
        self._sleepers.clear()
        with self._news:
            self.end("error", error)

    # For the reader.

    def cancel(self) -> None:
        """End the request after the step that runs."""
        with self._news:
            self._cancelled = True
            if not self.running and self.finish_reason is None:
                self.end("cancelled")
            self._work.notify_all()

    def result(self, timeout: float | None) -> Generation:
        """Wait for the end, and return the whole answer. `Handle.result` describes it."""
        wait = None if timeout is None else seconds("timeout", timeout)
        with self._news:
            self.unpause()
            self._work.notify_all()
            if not self._news.wait_for(lambda: self.finish_reason is not None, wait):
                raise TimeoutError(f"the answer is not whole after {timeout} s; wait longer, or cancel it")
            if self._error is not None:
                raise self._error
            return replace(self.stream.generation("".join(self._text)), finish_reason=str(self.finish_reason))

    def take(self) -> str | None:
        """Wait for the next piece and return it; None after the last one.

        Raises:
            SpeccError: the request failed, and all its pieces were taken.
        """
        with self._news:
            self._news.wait_for(self._has_news)
            return self._pop()

    async def take_async(self) -> str | None:
        """Wait for the next piece as `take` does, while other coroutines go on."""
        import asyncio  # It takes long to import, and few programs need it.

        loop = asyncio.get_running_loop()
        while True:
            with self._news:
                if self._has_news():
                    return self._pop()
                awake: asyncio.Future[None] = loop.create_future()
                self._sleepers.append((loop, awake))
            await awake

    def _has_news(self) -> bool:
        """Tell whether a piece waits, or none will come."""
        return bool(self._pieces) or self.finish_reason is not None

    def _pop(self) -> str | None:
        """Return the next piece, or None after the last one."""
        if self._pieces:
            self._work.notify_all()  # The request may go on.
            return self._pieces.popleft()
        if self._error is not None:
            raise self._error
        return None

    def _notify(self) -> None:
        """Wake everybody who waits for this request."""
        self._news.notify_all()
        for loop, awake in self._sleepers:
            with contextlib.suppress(RuntimeError):  # Its loop is closed, so nobody waits.
                loop.call_soon_threadsafe(_wake, awake)
        self._sleepers.clear()


def _wake(awake: asyncio.Future[None]) -> None:
    """Wake a coroutine that still waits."""
    if not awake.done():
        awake.set_result(None)
