"""Lanes: the caches that one request or one conversation uses at a time."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass
from threading import Lock, RLock, get_ident

from .engines import Engines
from .sequence import TARGET, Caches, Released, Sequence, common_prefix


@dataclass(frozen=True, kw_only=True)
class ReusePolicy:
    """When a request uses rows that another one left or has.

    Attributes:
        min_copied_rows: rows that a copy from another lane must save. Copying this many takes less time than computing
            one. Measure again with benchmarks/bench_prefix.py.
        min_share: a free lane is taken for its rows if the prompt begins with this share of them. Otherwise the lane
            that has been free for longest is taken, and the rows are copied, so that the first lane keeps all of its
            own for the conversation that they belong to.
    """

    min_copied_rows: int = 16
    min_share: float = 0.5


class Lane:
    """Caches by name, with what their rows belong to.

    Attributes:
        number: of the lane; lane 0 is there as long as the engines are.
        caches: the caches. Their rows are made when they are first used.
        current: the text that the rows were last used for.
        exact_engine: the engine that computed all rows, if that text was decoded exactly; else empty.
        fresh: whether the next text may use no rows of others, unless it is decoded exactly.
    """

    def __init__(self, engines: Engines, number: int = 0) -> None:
        self.number = number
        self.caches = Caches(lambda name: engines.store(name, number))
        self.current: Sequence | None = None
        self.exact_engine = ""
        self.fresh = False

    def claim(self, seq: Sequence, exact_engine: str) -> None:
        """Let a text use the rows. Those of other texts stay as far as the two agree.

        Args:
            seq: the text.
            exact_engine: the only engine that may compute its rows; empty if any may.
        """
        self.current = seq
        seq.move(self.caches)
        if exact_engine != self.exact_engine or (self.fresh and not exact_engine):
            for cache in self.caches.values():
                cache.sync([])  # Rows by engines of other widths have other last bits.
            self.exact_engine = exact_engine
        self.fresh = False

    def drop(self) -> None:
        """Drop the rows for good. A text that still uses them finds none."""
        self.caches = Caches(lambda name: Released())
        self.current = None


class Lanes:
    """The lanes of a model. A lane that was given back keeps its rows until another request takes it."""

    def __init__(self, engines: Engines, shares_rows: bool = True, policy: ReusePolicy | None = None) -> None:
        """Make lane 0, whose rows for the target must fit.

        Args:
            engines: make the rows.
            shares_rows: whether the tokens of a request stay as they are if another request computed some of its rows.
                Requests that are decoded exactly share rows in any case: those of one engine.
            policy: when rows of other requests are used.

        Raises:
            BackendError: they do not.
        """
        self._engines, self._shares_rows = engines, shares_rows
        self.policy = policy or ReusePolicy()
        self.first = self._make(0)
        self._all, self._free = [self.first], [self.first]
        self._lock = RLock()  # Python may collect a session, which gives its lane back, while this thread holds it.

    def take(self, prompt: Tokens[int] = ()) -> Lane:
        """Return a lane that nobody uses, and make one if there is none.

        Args:
            prompt: the tokens that will be run. A lane whose rows belong to their beginning is taken first.

        Raises:
            BackendError: the rows of one more do not fit, or the backend has room for one lane alone.
            SpeccError: the model is closed.
        """
        self._engines.check_open()
        with self._lock:
            if not self._free:
                self._all.append(self._make(len(self._all)))
                return self._all[-1]
            lane = max(self._free, key=lambda lane: self._worth(lane, prompt))  # The first one of equals.
            self._free.remove(lane)
            lane.fresh = not self._shares_rows
            return lane

    def _worth(self, lane: Lane, prompt: Tokens[int]) -> int:
        """Return how many rows of a free lane a prompt can use; 0 if most of its rows would be lost."""
        tokens = lane.caches[TARGET].tokens
        rows = common_prefix(tokens, prompt)
        return rows if rows >= len(tokens) * self.policy.min_share else 0

    def reuse(self, lane: Lane, tokens: Tokens[int], name: str = TARGET) -> None:
        """Copy rows of a text to its lane from the lane that has most of them, whether that one is in use or not.

        The caller holds the lock of the model, so that nobody writes rows. It may ask again after each call of prefill:
        then requests that begin alike compute what they share once, even if they came at once.

        Args:
            lane: that of the text, which claimed it.
            tokens: the text without its last token, which runs in any case; of another cache than the target's, the
                numbers of its rows, as it has them.
            name: the cache.
        """
        if not (self._shares_rows or lane.exact_engine):
            return
        others = [other for other in tuple(self._all) if other is not lane and other.exact_engine == lane.exact_engine]
        rows = common_prefix(lane.caches[name].tokens, tokens) if name in lane.caches else 0
        sources = {common_prefix(o.caches[name].tokens, tokens): o.caches[name] for o in others if name in o.caches}
        most = max(sources, default=0)
        if most >= rows + self.policy.min_copied_rows:
            lane.caches.copy_rows(name, sources[most], most)

    def give_back(self, lane: Lane) -> None:
        """Let others take a lane."""
        with self._lock:
            if lane not in self._free:
                self._free.append(lane)

    def should_wait(self, lane: Lane, prompt: Tokens[int], other: Tokens[int]) -> bool:
        """Tell whether a prompt had better wait for the rows of another one that is read now.

        Args:
            lane: that of the prompt.
            prompt: its tokens.
            other: the tokens of the other one.
        """
        rows = common_prefix(lane.caches[TARGET].tokens, prompt)
        return self._shares_rows and common_prefix(prompt, other) - 1 >= rows + self.policy.min_copied_rows

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
        self.reset()

    def reset(self) -> None:
        """Let go of the lock, whoever holds it. Only the child of a fork may do so, where no other thread is."""
        self._gate, self._lock = Lock(), Lock()
        self._waiting: set[int] = set()  # Threads, by their numbers.

    @property
    def locked(self) -> bool:
        """Tell whether a thread holds this lock."""
        return self._lock.locked()

    def __enter__(self) -> None:
        if self._waiting or not self._lock.acquire(blocking=False):
            self._waiting.add(get_ident())
            with self._gate:  # Who waits for the lock holds the gate, so nobody overtakes.
                self._lock.acquire()
            self._waiting.remove(get_ident())

    def __exit__(self, *error: object) -> None:
        self._lock.release()
