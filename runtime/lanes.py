"""Lanes: the caches that one request or one conversation uses at a time."""

from __future__ import annotations

from threading import Lock, get_ident

from .engines import Engines
from .sequence import TARGET, Caches, Released, Sequence


class Lane:
    """Caches by name, with what their rows belong to.

    Attributes:
        number: of the lane; lane 0 is there as long as the engines are.
        caches: the caches. Their rows are made when they are first used.
        current: the text that the rows were last used for.
        width: the engine that computed all rows, if that text was decoded exactly; else empty.
    """

    def __init__(self, engines: Engines, number: int = 0) -> None:
        self.number = number
        self.caches = Caches(lambda name: engines.store(name, number))
        self.current: Sequence | None = None
        self.width = ""

    def claim(self, seq: Sequence, width: str) -> None:
        """Let a text use the rows. Those of other texts stay as far as the two agree.

        Args:
            seq: the text.
            width: the only engine that may compute its rows; empty if any may.
        """
        self.current = seq
        seq.move(self.caches)
        if width != self.width:
            for cache in self.caches.values():
                cache.sync([])  # Rows by engines of other widths have other last bits.
            self.width = width

    def drop(self) -> None:
        """Drop the rows for good. A text that still uses them finds none."""
        self.caches = Caches(lambda name: Released())
        self.current = None


class Lanes:
    """The lanes of a model. A lane that was given back keeps its rows until another request takes it."""

    def __init__(self, engines: Engines) -> None:
        """Make lane 0, whose rows for the target must fit.

        Raises:
            BackendError: they do not.
        """
        self._engines = engines
        self.first = self._make(0)
        self._all, self._free = [self.first], [self.first]
        self._lock = Lock()

    def take(self) -> Lane:
        """Return a lane that nobody uses, and make one if there is none.

        Raises:
            BackendError: the rows of one more do not fit, or the backend has room for one lane alone.
            SpeccError: the model is closed.
        """
        self._engines.check_open()
        with self._lock:
            if not self._free:
                self._all.append(self._make(len(self._all)))
                return self._all[-1]
            return self._free.pop()

    def give_back(self, lane: Lane) -> None:
        """Let others take a lane."""
        with self._lock:
            if lane not in self._free:
                self._free.append(lane)

    def _make(self, number: int) -> Lane:
        """Make a lane with rows for the target."""
        lane = Lane(self._engines, number)
        _ = lane.caches[TARGET]
        return lane

    def drop(self) -> None:
        """Drop the rows of all lanes for good."""
        for lane in self._all:
            lane.drop()


class FairLock:
    """A lock for `with`. A thread that leaves it and enters again at once lets those go first that wait."""

    def __init__(self) -> None:
        self._gate, self._lock = Lock(), Lock()
        self._waiting: set[int] = set()  # Threads, by their numbers.

    def __enter__(self) -> None:
        if self._waiting or not self._lock.acquire(blocking=False):
            self._waiting.add(get_ident())
            with self._gate:  # Who waits for the lock holds the gate, so nobody overtakes.
                self._lock.acquire()
            self._waiting.remove(get_ident())

    def __exit__(self, *error: object) -> None:
        self._lock.release()
