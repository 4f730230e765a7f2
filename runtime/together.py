"""Steps of several requests at once: calls that one engine with lanes can take are one run of it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from collections.abc import Sequence as Items
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from .call import Call, finish
from .draft import Outputs
from .engine import Engine
from .errors import BackendError
from .lane_calls import LanesEngine
from .sequence import TARGET

T = TypeVar("T")
LanesFor = Callable[[Engine], LanesEngine | None]


@dataclass(frozen=True)
class RequestStep(Generic[T]):
    """One step of one request.

    Attributes:
        calls: yields the calls of the step, gets the outputs of each, and returns what the step gives.
        charge: is called with the seconds of each run that has a call of the step.
    """

    calls: Generator[Call, Outputs, T]
    charge: Callable[[float], object]


def run_together(requests: Items[RequestStep[T]], lanes_for: LanesFor) -> list[T | Exception]:
    """Take one step of each request, and return what each gives, or the error that ended it.

    Calls that no engine with lanes takes run first, each alone. Those of most drafters are among them. Then come calls
    of draft models that an engine with lanes takes. So the calls that verify come together, even if some requests draft
    by engines and others do not.

    Args:
        requests: the steps of requests with caches of their own.
        lanes_for: returns the engine with lanes that takes the calls of an engine, or None.
    """
    steps = _Steps(requests)
    while steps.calls:
        alone = [index for index, call in steps.calls.items() if lanes_for(call.engine) is None]
        for index in alone:
            steps.run_alone(index)
        if alone:
            continue
        drafting = {index: call for index, call in steps.calls.items() if call.engine.block.store != TARGET}
        for engine, indices in list(_batches(drafting or steps.calls, lanes_for)):
            steps.run_batch(engine, indices)
    return [steps.results[index] for index in range(len(requests))]


class _Steps(Generic[T]):
    """The steps of several requests under way. A request is known by its index.

    Attributes:
        calls: the call that each unfinished step waits for.
        results: what each finished step gave, or its error.
    """

    def __init__(self, requests: Items[RequestStep[T]]) -> None:
        """Begin all steps."""
        self._requests = requests
        self.calls: dict[int, Call] = {}
        self.results: dict[int, T | Exception] = {}
        for index, request in enumerate(requests):
            self._advance(index, partial(next, request.calls))

    def run_alone(self, index: int) -> None:
        """Run the call of one request by its own engine. A failure goes to that request."""
        request = self._requests[index]
        try:
            outputs = self.calls[index].run(request.charge)
        except Exception as e:  # Its step may have something to clear up.
            self._advance(index, partial(request.calls.throw, e))
            return
        self._advance(index, partial(request.calls.send, outputs))

    def run_batch(self, engine: LanesEngine, indices: Items[int]) -> None:
        """Run the calls of several requests in one run, or each alone if that run fails, to fail the guilty one only.

        Rows that a run has written and nobody has committed are scratch, so calls can run again.
        """
        if len(indices) == 1:  # Its own engine is faster.
            self.run_alone(indices[0])
            return
        before = engine.seconds
        try:
            answers = engine.run([self.calls[index] for index in indices])
        except BackendError:
            for index in indices:
                self.run_alone(index)
            return
        seconds = engine.seconds - before
        for index, outputs in zip(indices, answers, strict=True):
            request = self._requests[index]
            request.charge(seconds)
            self._advance(index, partial(send, request, self.calls[index], outputs))

    def _advance(self, index: int, go_on: Callable[[], Call]) -> None:
        """Let a step go on, and keep its next call, or its result or error."""
        self.calls.pop(index, None)
        try:
            self.calls[index] = go_on()
        except StopIteration as end:
            self.results[index] = end.value
        except Exception as e:  # It ends this request alone.
            self.results[index] = e


def send(request: RequestStep[T], call: Call, outputs: Outputs) -> Call:
    """Hand the outputs of a call to its step, and return the next call of the step.

    What may run while the call runs has not run, since the engine ran calls of several requests. So it runs first.
    """
    if call.meanwhile is not None:
        finish(call.meanwhile, request.charge)
    return request.calls.send(outputs)


def _batches(calls: dict[int, Call], lanes_for: LanesFor) -> Iterator[tuple[LanesEngine, list[int]]]:
    """Yield runs that take all calls: an engine with lanes, and the requests whose calls fit into one run of it."""
    by_engine: dict[LanesEngine, list[int]] = {}
    for index, call in sorted(calls.items()):
        engine = lanes_for(call.engine)
        assert engine is not None
        by_engine.setdefault(engine, []).append(index)
    for engine, indices in by_engine.items():
        batch: list[int] = []
        for index in indices:
            if batch and not engine.room([len(calls[i].tokens) for i in (*batch, index)]):
                yield engine, batch
                batch = []
            batch.append(index)
        yield engine, batch
