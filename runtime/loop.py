"""The decoding loop: steps of one request, or of several at once."""

from __future__ import annotations

import time
from collections.abc import Sequence as Requests
from dataclasses import dataclass
from typing import Any

from .acceptance import Acceptance
from .call import Call, finish
from .draft import Accepted, Draft, Outputs
from .drafters import Drafting
from .engine import Engine, narrowest
from .sequence import Sequence
from .stats import Stats


@dataclass(kw_only=True)
class Decoding:
    """A request in the loop.

    Attributes:
        seq: the text and its caches. Each step appends to it.
        drafting: the source of drafts.
        verifiers: the target's engines, narrowest first. The first one that a draft fits runs it.
        accept: the acceptance rule.
        stats: the counts of the request. Each step adds to them.
    """

    seq: Sequence
    drafting: Drafting[Any]
    verifiers: Requests[Engine]
    accept: Acceptance
    stats: Stats


def step(requests: Requests[Decoding]) -> list[tuple[Draft, Accepted]]:
    """Take one step of each request: propose a draft, verify it, commit what is accepted.

    The calls of several requests that one engine can run go into one run of it. All drafts are verified before any is
    accepted.

    Args:
        requests: one or more, each with caches of its own.

    Returns:
        The draft of each request, and what was accepted of it.

    Raises:
        RecipeError: a draft fits none of its request's engines.
        BackendError: an engine failed.
    """
    start = time.perf_counter()
    if len(requests) == 1:  # Most programs have one request, so it goes without lists.
        request = requests[0]
        draft, stats = _admitted(request, _propose(request)), request.stats
        call = _verify(request, draft)
        before = call.engine.seconds
        (outputs,) = call.engine.run((call,))
        stats.engine_seconds += call.engine.seconds - before
        steps = [(draft, _accept(request, draft, outputs))]
        stats.seconds += time.perf_counter() - start
        return steps
    drafts = [_admitted(*pair) for pair in zip(requests, _propose_together(requests), strict=True)]
    answers = _run([_verify(*pair) for pair in zip(requests, drafts, strict=True)], requests)
    steps = [(draft, _accept(r, draft, outputs)) for r, draft, outputs in zip(requests, drafts, answers, strict=True)]
    seconds = time.perf_counter() - start
    for request in requests:
        request.stats.seconds += seconds
    return steps


def _verify(request: Decoding, draft: Draft) -> Call:
    """Return the call that verifies a draft."""
    return Call(narrowest(request.verifiers, draft.tree), request.seq.cache, 0, draft.tokens, draft.tree)


def _admitted(request: Decoding, draft: Draft) -> Draft:
    """Return a draft without what the request's processors refuse."""
    processing = request.seq.processing
    return processing.cut(draft, request.verifiers) if processing else draft


def _accept(request: Decoding, draft: Draft, outputs: Outputs) -> Accepted:
    """Accept a part of a draft, commit it, and let the drafting see it."""
    seq, stats = request.seq, request.stats
    stats.target_calls += 1
    verified = seq.verified(outputs, draft)
    accepted = request.accept(draft, verified)
    seq.append(draft, accepted)
    if seq.processing:
        seq.processing.commit(outputs, accepted.slots, seq.tokens[-len(accepted.slots) :])
    request.drafting.observe(draft, verified, accepted)
    stats.count(draft, accepted)
    return accepted


def _propose(request: Decoding) -> Draft:
    """Return the draft of one request, whose calls run one after another."""
    stats = request.stats

    def run(call: Call) -> Outputs:
        before = call.engine.seconds
        outputs = call.run()
        stats.engine_seconds += call.engine.seconds - before
        stats.draft_calls += 1
        return outputs

    return finish(request.drafting.propose(request.seq.room), run)


def _propose_together(requests: Requests[Decoding]) -> list[Draft]:
    """Return the draft of each request. The calls that they ask for at one time run together."""
    proposals = [request.drafting.propose(request.seq.room) for request in requests]
    drafts: dict[int, Draft] = {}
    answers: dict[int, Any] = dict.fromkeys(range(len(requests)))  # None starts a generator.
    while answers:
        calls: dict[int, Call] = {}
        for index, outputs in answers.items():
            try:
                calls[index] = proposals[index].send(outputs)
            except StopIteration as end:
                drafts[index] = end.value
        active = [requests[index] for index in calls]
        for request in active:
            request.stats.draft_calls += 1
        answers = dict(zip(calls, _run(list(calls.values()), active), strict=True))
    return [drafts[index] for index in range(len(requests))]


def _run(calls: Requests[Call], requests: Requests[Decoding]) -> list[Outputs]:
    """Run one call of each request. Those of one engine are one run. Each request is charged the time of its run."""
    by_engine: dict[Engine, list[int]] = {}
    for index, call in enumerate(calls):
        by_engine.setdefault(call.engine, []).append(index)
    outputs: dict[int, Outputs] = {}
    for engine, indices in by_engine.items():
        before = engine.seconds
        outputs |= zip(indices, engine.run([calls[index] for index in indices]), strict=True)
        for index in indices:
            requests[index].stats.engine_seconds += engine.seconds - before
    return [outputs[index] for index in range(len(calls))]
