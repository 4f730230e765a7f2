"""A decoder: the steps of one request, from the first token of its prompt on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass

from .call import Call, finish
from .draft import Draft, Outputs
from .draft_head import draft_rows
from .engine import Engine
from .errors import CODE_ERRORS, SpeccError
from .lanes import Lane
from .loop import Decoding, stepping
from .method import RunnableMethod
from .shared import Shared
from .tree import Tree


@dataclass(frozen=True, kw_only=True)
class StepLimits:
    """How much a step may do.

    Attributes:
        prompt_tokens: tokens of the prompt that it runs at most.
        draft_tokens: tokens that it drafts at most.
    """

    prompt_tokens: int = sys.maxsize
    draft_tokens: int = sys.maxsize


class Decoder:
    """The steps of one request on the rows of a lane.

    Between two steps other requests may use the rows. Then those of this request are copied or computed again, a
    call in each step.

    Attributes:
        decoding: the request, as the loop takes it.
        limited: whether drafts may be cut short, since the tokens do not depend on them.
        started: whether the first step has begun.
        reads: whether the next step runs tokens that have no row: those of the prompt, or of a text that lost its rows.
    """

    def __init__(
        self,
        shared: Shared,
        decoding: Decoding,
        method: RunnableMethod,
        exact_engine: str,
        lane_for: Callable[[Decoder], Lane],
        *,
        limited: bool = False,
    ) -> None:
        """Prepare the steps. Nothing runs before the first one.

        Args:
            shared: what all requests share.
            decoding: the request. Its text ends with the prompt.
            method: that of its recipe.
            exact_engine: the only engine that may run for the target; empty if any may.
            lane_for: returns the lane that this decoder may use now, or raises an error if it may not go on.
            limited: whether drafts may be cut short, since the tokens do not depend on them.
        """
        self.limited = limited
        self.decoding, self.started, self.reads = decoding, False, True
        self._shared, self._method, self._exact_engine, self._lane_for = shared, method, exact_engine, lane_for
        self._prompt = len(decoding.seq.tokens)
        self._reader: Engine | None = None  # The engine that runs the tokens without rows.
        self._begins = True  # Whether the next step that drafts is the first one on these rows.

    def advance(self) -> list[int]:
        """Take a step alone, and return its new tokens. While the prompt is read, a step has none.

        The step holds the model's lock.
        """
        with self._shared.lock:
            return finish(self.step(), self.charge)

    def step(self, limits: StepLimits = StepLimits()) -> Generator[Call, Outputs, list[int]]:
        """Yield the calls of the next step, get the outputs of each, and return its new tokens.

        The caller holds the model's lock until the step ends.
        """
        seq, lane = self.decoding.seq, self._lane_for(self)
        if not self.started or lane.current is not seq or seq.caches is not lane.caches:
            lane.claim(seq, self._exact_engine)
            self.started, self.reads, self._begins, self._reader = True, True, True, None
        if self.reads:
            return (yield from self._read(limits.prompt_tokens))
        if self._begins:
            self._reuse_draft_rows(lane)
        try:
            _, accepted = yield from stepping(self.decoding, limits.draft_tokens)
        except SpeccError:
            raise
        except CODE_ERRORS as e:
            raise self._method.failure(e) from e
        return seq.tokens[-len(accepted.slots) :]

    def charge(self, seconds: float) -> None:
        """Count a run of an engine for the step under way. Those that read the prompt do not count."""
        if not self.reads:
            self.decoding.stats.charge(seconds)

    def _reuse_draft_rows(self, lane: Lane) -> None:
        """Copy the rows of the drafter's own caches that other requests have, now that they are needed."""
        engines = [self._shared.engines[name] for name in self._method.recipe.engines.values()]
        for name, keys in draft_rows(engines, self.decoding.seq.tokens).items():
            self._shared.lanes.reuse(lane, keys, name)
        self._begins = False

    def _read(self, most: int) -> Generator[Call, Outputs, list[int]]:
        """Run tokens that have no row, as many as one call takes. At the prompt's end choose the next token."""
        start = time.perf_counter()
        seq, stats, engines = self.decoding.seq, self.decoding.stats, self._shared.engines
        at_prompt = len(seq.tokens) == self._prompt
        end = len(seq.tokens) if at_prompt else len(seq.tokens) - 1
        self._shared.lanes.reuse(self._lane_for(self), seq.tokens[: end - 1])
        feed = seq.cache.sync(seq.tokens[: end - 1]) + seq.tokens[end - 1 : end]
        if self._reader is None:
            self._reader = engines[self._exact_engine] if self._exact_engine else engines.prefill(len(feed))
        engine = self._reader
        chunk = feed[: min(engine.slots, most)]
        outputs = yield Call(engine, seq.cache, 0, chunk, Tree.chain(len(chunk)))
        seq.cache.commit(chunk, range(len(chunk)), outputs)
        self.reads = len(chunk) < len(feed)
        tokens: list[int] = []
        if at_prompt and not self.reads:
            outputs = outputs.only(0 if engine.block.last_row else len(chunk) - 1)
            tokens.append(seq.verified(outputs, Draft.chain(seq.tokens[-1:])).choose(0))
            seq.tokens += tokens
            if seq.processing:
                seq.processing.commit(outputs, (0,), tokens)
        stats.prefill_seconds += time.perf_counter() - start
        return tokens
