"""A scheduler: one thread that runs submitted requests in turns, a step each."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from threading import Condition, RLock, Thread
from typing import TYPE_CHECKING

from .errors import BackendError, BusyError, SpeccError
from .lanes import Lanes
from .stats import Stats
from .stream import Generation, Stream

if TYPE_CHECKING:
    import asyncio

    from .session import Session


@dataclass(frozen=True, kw_only=True)
class SchedulerPolicy:
    """How much a scheduler takes on.

    Attributes:
        running: requests that have caches at a time.
        waiting: requests that wait for caches at most.
        pieces: pieces of text that a request may be ahead of its reader.
    """

    running: int = 4
    waiting: int = 256
    pieces: int = 64


class Handle:
    """A submitted request: an iterator over pieces of its text, for `for` and for `async for`.

    A request that is far ahead of its reader pauses, and may lose its turn to others. `result` reads all of it.
    Any thread may use a handle.

    Attributes:
        token_ids: the new tokens so far.
        stats: counts and times of the request so far.
        prompt_tokens: tokens of the prompt.
    """

    def __init__(self, session: Session, stream: Stream, work: Condition, news: Condition, bound: int) -> None:
        """Begin to wait.

        Args:
            session: the conversation of this request alone.
            stream: the answer.
            work: the scheduler's condition, by which it learns that a request may go on.
            news: the handle's own condition, over the same lock.
            bound: pieces that may wait for the reader.
        """
        self.session, self.stream, self.bound = session, stream, bound
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
            TimeoutError: the answer is not whole in time. The request goes on.
            SpeccError: the request failed.
        """
        with self._news:
            self._drained = True
            self._work.notify_all()
            if not self._news.wait_for(lambda: self._reason is not None, timeout):
                raise TimeoutError(f"the answer is not whole after {timeout} s; wait longer, or cancel it")
            if self._error is not None:
                raise self._error
            return replace(self.stream.generation("".join(self._text)), finish_reason=str(self._reason))

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
        """Whether somebody cancelled the request."""
        return self._cancelled

    @property
    def paused(self) -> bool:
        """Whether the request waits for its reader."""
        return len(self._pieces) >= self.bound and not self._drained and not self._cancelled

    def unbind(self) -> None:
        """Pause no more."""
        self._drained = True

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


class Scheduler:
    """A queue of requests, and a thread that runs some of them in turns. The thread ends when there are none."""

    def __init__(self, lanes: Lanes, policy: SchedulerPolicy) -> None:
        self._lanes, self.policy = lanes, policy
        self._lock = RLock()  # Guards the state of all handles too.
        self._work = Condition(self._lock)
        self._waiting: list[Handle] = []
        self._running: list[Handle] = []
        self._room = policy.running  # Lanes that fit at once; fewer once one did not.
        self._thread: Thread | None = None

    def submit(self, session: Session, stream: Stream) -> Handle:
        """Put a request into the queue.

        Raises:
            BusyError: the queue is full.
        """
        with self._lock:
            self._waiting = [handle for handle in self._waiting if handle.finish_reason is None]
            if len(self._waiting) >= self.policy.waiting:
                raise BusyError(f"{len(self._waiting)} requests wait already; submit again when some have ended")
            handle = Handle(session, stream, self._work, Condition(self._lock), self.policy.pieces)
            self._waiting.append(handle)
            if self._thread is None:
                self._thread = Thread(target=self._serve, name="specc scheduler", daemon=True)
                self._thread.start()
            self._work.notify_all()
        return handle

    def wake(self) -> None:
        """Let the thread look again after the model was closed. Then all requests fail, those that pause too."""
        with self._lock:
            for handle in (*self._running, *self._waiting):
                handle.unbind()
            self._work.notify_all()

    def _serve(self) -> None:
        """Run requests until there are none."""
        while True:
            with self._lock:
                self._admit()
                if not self._running and not self._waiting:
                    self._thread = None
                    return
                ready = [handle for handle in self._running if not handle.paused]
                if not ready:
                    self._work.wait()
            for handle in ready:
                self._turn(handle)

    def _admit(self) -> None:
        """Give lanes to requests that wait, in their order. Those that wait for their readers alone need none."""
        self._waiting = [handle for handle in self._waiting if handle.finish_reason is None]
        for handle in [handle for handle in self._waiting if not handle.paused]:
            if len(self._running) >= self._room and not self._evict():
                return
            try:
                handle.session.lane = self._lanes.take()
            except BackendError:
                self._room = max(1, len(self._running))
                if self._running:
                    return
                handle.session.lane, handle.shares = self._lanes.first, True
            except SpeccError as e:  # The model is closed.
                handle.end("error", e)
                continue
            handle.running = True
            self._waiting.remove(handle)
            self._running.append(handle)
        self._waiting = [handle for handle in self._waiting if handle.finish_reason is None]

    def _evict(self) -> bool:
        """Take the lane of a request that pauses, which then waits again. Tell whether there was one."""
        for handle in self._running:
            if handle.paused:
                self._leave(handle)
                self._waiting.append(handle)
                return True
        return False

    def _leave(self, handle: Handle) -> None:
        """Take a request off its lane."""
        self._running.remove(handle)
        handle.running = False
        if not handle.shares:
            self._lanes.give_back(handle.session.lane)

    def _turn(self, handle: Handle) -> None:
        """Run a step of a request."""
        reason, error, pieces = None, None, list[str]()
        if handle.cancelled:
            reason = "cancelled"
        else:
            try:
                pieces = handle.stream.advance()
                reason = handle.stream.finish_reason if handle.stream.ended else None
            except Exception as e:  # It ends this request, and its reader gets it.
                reason, error = "error", e
        with self._lock:
            handle.put(pieces)
            if reason is not None:
                self._leave(handle)
                handle.end(reason, error)
