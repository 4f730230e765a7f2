"""A handle: a submitted request as its reader sees it."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from threading import TIMEOUT_MAX, Condition
from typing import TYPE_CHECKING, Self

from .decoder import Decoder
from .errors import PromptError
from .prices import Progress
from .stats import Stats
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
        PromptError: it is not a number.
    """
    if type(value) not in (int, float) or value != value:
        raise PromptError(f"{name} is {value!r}; give seconds, or None to wait for ever")
    return float(min(TIMEOUT_MAX, max(0, value)))


class Handle:
    """A submitted request: an iterator over pieces of its text, for `for` and for `async for`.

    A request that is far ahead of its reader pauses, and may lose its turn to others. `result` reads all of it.
    A request that nobody reads on keeps its place in the queue: a `with` block cancels it at its end, `cancel` does so
    at once, and a deadline at its time. Any thread may use a handle.

    Attributes:
        token_ids: the new tokens so far.
        stats: counts and times of the request so far.
        prompt_tokens: tokens of the prompt.
    """

    def __init__(self, task: Task, work: Condition, news: Condition, bound: int) -> None:
        """Begin to wait.

        Args:
            task: the request.
            work: the scheduler's condition, by which it learns that a request may go on.
            news: the handle's own condition, over the same lock.
            bound: pieces that may wait for the reader.
        """
        self.task, self.stream, self.bound = task, task.stream, bound
        self.progress = Progress()
        self.running = False  # Whether the request has caches.
        self.shares = False  # Whether others may use those caches meanwhile.
        self._work, self._news = work, news
        self._pieces: deque[str] = deque()
        self._text: list[str] = []
        self._reason: str | None = None
        self._error: BaseException | None = None
        self._cancelled, self._drained = False, False
        self._sleepers: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    @property
    def token_ids(self) -> list[int]:
        """The new tokens so far."""
        return self.stream.token_ids

    @property
    def stats(self) -> Stats:
        """Counts and times of the request so far."""
        return self.stream.stats

    @property
    def prompt_tokens(self) -> int:
        """The number of tokens of the prompt."""
        return self.stream.prompt_tokens

    @property
    def finish_reason(self) -> str | None:
        """`eos`, `stop`, `length`, `cancelled` or `error`; None while the answer goes on."""
        return self._reason

    def cancel(self) -> None:
        """End the request after the step that runs. What it has answered stays. One that has ended stays as it is."""
        with self._news:
            self._cancelled = True
            if not self.running and self._reason is None:
                self.end("cancelled")
            self._work.notify_all()

    def result(self, timeout: float | None = None) -> Generation:
        """Wait for the end, and return the whole answer. A cancelled one has the text until then.

        Args:
            timeout: seconds to wait; None waits for ever.

        Raises:
            PromptError: the timeout is not a number.
            TimeoutError: the answer is not whole in time. The request goes on.
            SpeccError: the request failed.
        """
        wait = None if timeout is None else seconds("timeout", timeout)
        with self._news:
            self._drained = True
            self._work.notify_all()
            if not self._news.wait_for(lambda: self._reason is not None, wait):
                raise TimeoutError(f"the answer is not whole after {timeout} s; wait longer, or cancel it")
            if self._error is not None:
                raise self._error
            return replace(self.stream.generation("".join(self._text)), finish_reason=str(self._reason))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Cancel the request if it has not ended."""
        self.cancel()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._news:
            self._news.wait_for(lambda: self._pieces or self._reason is not None)
            piece = self._take()
        if piece is None:
            raise StopIteration
        return piece

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        import asyncio  # It takes long to import, and few programs need it.

        loop = asyncio.get_running_loop()
        while True:
            with self._news:
                if self._pieces or self._reason is not None:
                    piece = self._take()
                    break
                awake: asyncio.Future[None] = loop.create_future()
                self._sleepers.append((loop, awake))
            await awake
        if piece is None:
            raise StopAsyncIteration
        return piece

    def _take(self) -> str | None:
        """Return the next piece, or None after the last one. The caller holds the condition.

        Raises:
            SpeccError: the request failed, and all its pieces were taken.
        """
        if self._pieces:
            self._work.notify_all()  # The request may go on.
            return self._pieces.popleft()
        if self._error is not None:
            raise self._error
        return None

    # The scheduler calls what follows, and holds the condition.

    @property
    def cancelled(self) -> bool:
        """Tell whether somebody cancelled the request, or its deadline has passed."""
        deadline = self.task.deadline
        return self._cancelled or (deadline is not None and time.monotonic() >= deadline)

    @property
    def paused(self) -> bool:
        """Tell whether the request waits for its reader."""
        return len(self._pieces) >= self.bound and not self._drained and not self._cancelled

    def unpause(self) -> None:
        """Never pause again, whether somebody reads or not."""
        self._drained = True

    @property
    def decoder(self) -> Decoder:
        """Return the decoder, which takes the steps of the request. A request that has ended has none."""
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
        self._reason, self._error = reason, error
        self.stream.stop()
        self._notify()

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
