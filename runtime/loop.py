"""The decoding loop: one step of a request."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator
from collections.abc import Sequence as Engines
from dataclasses import dataclass
from typing import Any

from .acceptance import Acceptance
from .call import Call
from .draft import NO_INPUTS, Accepted, Draft, Outputs
from .drafters import Drafting
from .engine import Engine, narrowest
from .errors import CODE_ERRORS, RecipeError, SpeccError, first_line
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
        one_width: whether `verifiers` run every step, also if a drafter names another engine of the target.
    """

    seq: Sequence
    drafting: Drafting[Any]
    verifiers: Engines[Engine]
    accept: Acceptance
    stats: Stats
    one_width: bool = False


def stepping(request: Decoding, draft_tokens: int = sys.maxsize) -> Generator[Call, Outputs, tuple[Draft, Accepted]]:
    """Take one step of a request: propose a draft, verify it, commit what is accepted.

    Yield the calls of the step, and get the outputs of each. They are valid until the next call is asked for. Who runs
    the calls counts them by `Stats.charge`.

    Args:
        request: the request.
        draft_tokens: how many tokens are worth drafting at most. With 0 the drafter is not asked.

    Returns:
        The draft as it was verified, and what was accepted of it.

    Raises:
        RecipeError: the draft fits none of the request's engines, or the acceptance rule failed.
    """
    start = time.perf_counter()
    seq, stats, processing = request.seq, request.stats, request.seq.processing
    drafts = draft_tokens > 0
    if drafts:
        draft = yield from request.drafting.propose(min(seq.room, draft_tokens))
    else:
        draft = Draft.chain([seq.pending])
    if processing:
        draft = processing.cut(draft, request.verifiers)
    if draft.by is None or request.one_width:
        engine, inputs = narrowest(request.verifiers, draft.tree), NO_INPUTS
    else:
        engine, inputs = draft.by, draft.inputs
    before = stats.engine_seconds
    outputs = yield Call(engine, seq.cache, 0, draft.tokens, draft.tree, inputs, draft.meanwhile)
    parallel = draft.meanwhile is not None  # Then others were charged for too.
    stats.verify_seconds += engine.last_seconds if parallel else stats.engine_seconds - before
    stats.target_calls += 1
    draft = outputs.kept_of(draft)
    verified = seq.verified(outputs, draft)
    try:
        accepted = request.accept(draft, verified)
    except SpeccError:
        raise
    except CODE_ERRORS as e:
        raise RecipeError(
            f"acceptance {request.accept.__name__} failed at this draft ({type(e).__name__}: {first_line(e)}); "
            "take another rule, such as match"
        ) from e
    seq.append(draft, accepted, outputs)
    if processing:
        processing.commit(outputs, accepted.slots, seq.tokens[-len(accepted.slots) :])
    if drafts:
        request.drafting.observe(draft, verified, accepted)
    stats.count(draft, accepted)
    stats.seconds += time.perf_counter() - start
    return draft, accepted
