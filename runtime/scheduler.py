"""A scheduler: one thread that runs submitted requests, a step of each at a time."""

from __future__ import annotations

import atexit
import math
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from threading import TIMEOUT_MAX, Condition, RLock, Thread

from .decoder import StepLimits
from .errors import BackendError, BusyError, SpeccError, SpeccWarning
from .forks import watch
from .prices import Bass, ByPrice, Experience, Prices, WidthPolicy, planned_prices
from .shared import Shared
from .submission import Submission, Task
from .together import RequestStep, run_together

# The rules for the length of drafts, by the name that `SchedulerPolicy.widths` has.
WIDTHS: Mapping[str, Callable[[Prices], WidthPolicy]] = {"price": ByPrice, "bass": lambda prices: Bass()}


@dataclass(frozen=True, kw_only=True)
class SchedulerPolicy:
    """How much a scheduler takes on.

    Attributes:
        running: requests that have caches at a time; None is as many as the bundle has lanes, and 4 at least.
        waiting: requests that wait for caches at most.
        pieces: from so many pieces of text on that wait for a reader, its request pauses.
        prompt_tokens: tokens of prompts that a step runs at most while other requests decode; None is as many as make
            the step `prompt_share` longer.
        prompt_share: the share by which tokens of prompts may lengthen a step; see `prompt_tokens`.
        widths: what limits drafts where requests run together: `price`, or `bass`.
    """

    running: int | None = None
    waiting: int = 256
    pieces: int = 64
    prompt_tokens: int | None = None
    prompt_share: float = 0.7
    widths: str = "price"

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            SpeccError: one is out of range.
        """
        for name in ("running", "waiting", "pieces", "prompt_tokens"):
            number = getattr(self, name)
            if number is None and name in ("running", "prompt_tokens"):
                continue
            least = 0 if name == "waiting" else 1
            if type(number) is not int or number < least:
                raise SpeccError(f"SchedulerPolicy: {name} is {number!r}; give a whole number from {least} on")
        if type(self.prompt_share) not in (int, float) or not 0 < self.prompt_share < math.inf:
            raise SpeccError(f"SchedulerPolicy: prompt_share is {self.prompt_share!r}; give a number above 0")
        if self.widths not in tuple(WIDTHS):
            raise SpeccError(f"SchedulerPolicy: widths is {self.widths!r}; choose one of {', '.join(WIDTHS)}")


class Scheduler:
    """A queue of requests, and a thread that runs some of them. The thread ends when there are none.

    If the bundle has engines with lanes, a step of all requests is one run of the target. Otherwise they take turns.

    Attributes:
        policy: how much it takes on.
        together: whether requests run together.
    """

    def __init__(self, shared: Shared, policy: SchedulerPolicy) -> None:
        """Prepare the queue.

        Raises:
            BundleError: the bundle's plan has prices that are none.
        """
        self._shared, self._lanes, self.policy = shared, shared.lanes, policy
        self.together = shared.engines.lanes > 1
        self._planned = planned_prices(shared.bundle.manifest)
        self._lock = RLock()  # Guards the state of all submissions too.
        self._work = Condition(self._lock)
        self._waiting: list[Submission] = []
        self._running: list[Submission] = []
        # Lanes that fit at once; fewer once one did not.
        self._room = max(4, shared.engines.lanes) if policy.running is None else policy.running
        self._experience: defaultdict[str, Experience] = defaultdict(Experience)  # By recipe.
        self._thread: Thread | None = None
        self._ends = False  # Whether Python ends, so that no step may begin.
        self._warned = False  # Whether the user knows that requests take turns.
        watch(self)

    def after_fork(self) -> None:
        """Refuse every use in the child of a fork, if a thread of the parent was using the model. It is not here.

        Where no thread was, the child has a whole copy, and its requests get a thread of their own.
        """
        if self._thread is None and not self._shared.lock.locked:
            return
        self._shared.leave_to_parent()
        self._lock = RLock()
        self._work = Condition(self._lock)
        try:
            self._shared.engines.check_open()
        except SpeccError as e:
            for submission in (*self._running, *self._waiting):
                submission.lose(e)
        self._running.clear()
        self._waiting.clear()
        self._thread = None
        atexit.unregister(self._end)

    def submit(self, task: Task) -> Submission:
        """Put a request into the queue.

        Raises:
            BusyError: the queue is full.
            SpeccError: Python ends.
        """
        with self._lock:
            if self._ends:
                raise SpeccError("the program ends, so no request may begin; submit requests before it does")
            self._waiting = [submission for submission in self._waiting if submission.finish_reason is None]
            count = len(self._running) + len(self._waiting)  # A new request waits until the thread takes it.
            if count >= self._room + self.policy.waiting:
                raise BusyError(f"{count} requests run or wait already; submit again when some have ended")
            if not self.together and (self._running or self._waiting) and not self._warned:
                self._warned = True
                warnings.warn(self._why_turns(), SpeccWarning, stacklevel=3)
            submission = Submission(task, self._work, Condition(self._lock), self.policy.pieces)
            self._waiting.append(submission)
            if self._thread is None:
                self._thread = Thread(target=self._serve, name="specc scheduler", daemon=True)
                atexit.register(self._end)
                self._thread.start()
            self._work.notify_all()
        return submission

    def _why_turns(self) -> str:
        """Say why requests take turns, and what changes that."""
        if all(spec.block.lanes == 1 for spec in self._shared.engines.specs()):
            return "requests take turns, since the bundle has no engines with lanes; compile with --lanes 8"
        limits = "lanes run only on the CPU, and where no token depends on the width of a step"
        return f"requests take turns, since {limits}; load the bundle on the CPU, or compile it with specc-kernels"

    def wake(self) -> None:
        """Let the thread look again after the model was closed. Then all requests fail, those that pause too."""
        with self._lock:
            for submission in (*self._running, *self._waiting):
                submission.unpause()
            self._work.notify_all()

    def _end(self) -> None:
        """Wait for the end of the step that runs, when Python ends. Python would kill the thread in native code."""
        with self._lock:
            self._ends, thread = True, self._thread
            self.wake()
        if thread is not None:
            thread.join()

    def _serve(self) -> None:
        """Run requests until there are none. If something else than a request fails, end all, so that nobody waits."""
        try:
            self._serve_all()
        except BaseException as e:
            with self._lock:
                for submission in (*self._running, *self._waiting):
                    if submission.running:
                        self._leave(submission)
                    submission.end("error", e)
                self._waiting.clear()
                self._thread = None
                atexit.unregister(self._end)
            raise

    def _serve_all(self) -> None:
        while True:
            with self._lock:
                if self._ends:
                    return
                self._admit()
                if not self._running and not self._waiting:
                    self._thread = None
                    atexit.unregister(self._end)
                    return
                ready = [submission for submission in self._running if submission.cancelled or not submission.paused]
                if not ready:
                    self._work.wait(self._seconds_to_deadline())
            self._run(ready)

    def _seconds_to_deadline(self) -> float | None:
        """Return how long it takes until a request must end; None if there is none that must."""
        deadlines = [h.task.deadline for h in (*self._running, *self._waiting) if h.task.deadline is not None]
        return min(TIMEOUT_MAX, max(0.0, min(deadlines) - time.monotonic())) if deadlines else None

    def _admit(self) -> None:
        """Give lanes to requests that wait: first those of high priority, then those that came first.

        A request that only waits for its reader gets none.
        """
        for submission in self._waiting:
            if submission.cancelled and submission.finish_reason is None:
                submission.end("cancelled")
        self._waiting = [submission for submission in self._waiting if submission.finish_reason is None]
        self._waiting.sort(key=lambda submission: -submission.task.priority)
        for submission in [each for each in self._waiting if not each.paused]:
            if len(self._running) >= self._room and not self._evict():
                return
            try:
                submission.task.session.lane = self._lanes.take(submission.stream.prompt)
            except BackendError:
                self._room = max(1, len(self._running))
                if self._running:
                    return
                submission.task.session.lane, submission.shares = self._lanes.first, True
            except SpeccError as e:  # The model is closed.
                submission.end("error", e)
                continue
            if not submission.stream.stats.target_calls:  # Its first lane.
                submission.progress = self._experience[submission.stream.stats.recipe].begin()
            submission.running = True
            self._waiting.remove(submission)
            self._running.append(submission)
        self._waiting = [submission for submission in self._waiting if submission.finish_reason is None]

    def _evict(self) -> bool:
        """Take the lane of a request that pauses, which then waits again. Tell whether there was one."""
        for submission in self._running:
            if submission.paused:
                self._leave(submission)
                self._waiting.append(submission)
                return True
        return False

    def _leave(self, submission: Submission) -> None:
        """Take a request off its lane."""
        self._running.remove(submission)
        submission.running = False
        if not submission.shares:
            self._lanes.give_back(submission.task.session.lane)

    def _run(self, submissions: list[Submission]) -> None:
        """Run a step of each of some requests, and end those that are cancelled."""
        for submission in submissions:
            if submission.cancelled:
                self._finish(submission, "cancelled")
        active = [submission for submission in submissions if submission.running]
        if self.together:
            self._run_together(active)
            return
        for submission in active:
            self._take(submission, submission.stream.advance)

    def _run_together(self, submissions: list[Submission]) -> None:
        """Run a step of each of some requests at once."""
        try:
            with self._shared.lock:
                limits = self._limits(submissions)
                steps = [RequestStep(each.decoder.step(limit), each.charge) for each, limit in limits.items()]
                results = run_together(steps, self._shared.engines.lanes_for)
        except Exception as e:  # The engine with lanes is not to be had, so no request can go on.
            for submission in submissions:
                self._finish(submission, "error", e)
            return
        for submission, tokens in zip(limits, results, strict=True):
            if isinstance(tokens, Exception):
                self._finish(submission, "error", tokens)
            else:
                submission.progress.observe(submission.stream.stats)
                self._take(submission, partial(submission.stream.take, tokens))

    def _limits(self, submissions: list[Submission]) -> dict[Submission, StepLimits]:
        """Share out the tokens of a step. A request that reads its prompt and gets none is left out."""
        engines = self._shared.engines
        readers = [submission for submission in submissions if submission.decoder.reads]
        writers = [submission for submission in submissions if not submission.decoder.reads]
        for submission in writers:
            submission.progress.shares = engines.lanes_for(submission.decoder.decoding.verifiers[-1]) is not None
        lengths = self._widths.draft_tokens([submission.progress for submission in writers])
        limits = {
            submission: StepLimits(draft_tokens=length) if submission.decoder.limited else StepLimits()
            for submission, length in zip(writers, lengths, strict=True)
        }
        if not writers:
            return {submission: StepLimits() for submission in self._first_of_alike(readers)}
        if readers:  # One after another, so that the first ones answer soon.
            limits[readers[0]] = StepLimits(prompt_tokens=self._prompt_tokens(len(writers)))
        return limits

    def _first_of_alike(self, readers: list[Submission]) -> list[Submission]:
        """Leave out requests that can copy later what another one computes now."""
        first: list[Submission] = []
        for submission in readers:
            lane, prompt = submission.task.session.lane, submission.stream.prompt
            if not any(self._lanes.should_wait(lane, prompt, other.stream.prompt) for other in first):
                first.append(submission)
        return first

    def _prompt_tokens(self, writers: int) -> int:
        """Return how many tokens of prompts a step has beside those of requests that decode."""
        if self.policy.prompt_tokens is not None:
            return self.policy.prompt_tokens
        return max(1, self._prices.slots(writers, self.policy.prompt_share))

    @cached_property
    def _prices(self) -> Prices:
        """Return the plan's prices of the engine in which requests run together.

        A bundle without a plan has none. Then they are measured when the first request runs.
        """
        if self._planned:
            return self._planned
        engines = self._shared.engines
        lanes = engines.lanes_for(engines.prefill(1))
        if lanes is None:
            return Prices()
        text = (
            "the bundle does not have the times of steps of several requests, so the first request measures them; "
            f"to write them into the bundle, run specc tune {self._shared.bundle.path}"
        )
        warnings.warn(text, SpeccWarning, stacklevel=1)
        return lanes.measure()

    @cached_property
    def _widths(self) -> WidthPolicy:
        return WIDTHS[self.policy.widths](self._prices)

    def _take(self, submission: Submission, take: Callable[[], list[str]]) -> None:
        """Give a request the text of a step, and end it if that was the last one, or if it fails."""
        try:
            pieces = take()
        except Exception as e:  # It ends this request, and its reader gets it.
            self._finish(submission, "error", e)
            return
        with self._lock:
            submission.put(pieces)
        if submission.stream.ended:
            self._finish(submission, submission.stream.finish_reason)

    def _finish(self, submission: Submission, reason: str, error: Exception | None = None) -> None:
        """End a request, and take it off its lane."""
        with self._lock:
            self._leave(submission)
            submission.end(reason, error)
