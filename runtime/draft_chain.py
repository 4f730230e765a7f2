"""Draft a chain with an engine, one token a call."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from .call import Call
from .draft import ONE_SLOT, Draft, Outputs
from .engine import Engine
from .lengths import Length
from .rng import Use
from .sequence import Cache, Sequence

# Yields the calls that run a token in a slot of the chain, and returns their outputs as those of an engine of one slot.
Run = Callable[[int, int], Generator[Call, Outputs, Outputs]]


def draft_chain(
    engine: Engine,
    seq: Sequence,
    cache: Cache,
    *,
    room: int,
    length: Length,
    sample: bool,
    keep_logits: bool = False,
) -> Generator[Call, Outputs, Draft]:
    """Yield the calls that draft tokens after the pending one, until the length policy ends the draft.

    The engine's rows are scratch, past the end of its cache. The last drafted token has no row, but with `keep_logits`.

    Args:
        engine: an engine of one slot.
        seq: the sequence.
        cache: the engine's cache, with the rows of all tokens but the pending one.
        room: how many tokens are worth drafting. The end of the cache may leave room for fewer.
        length: the policy.
        sample: sample the tokens if the request samples, and state the distributions in the draft; otherwise take the
            engine's likeliest token.
        keep_logits: keep the logits of each slot in the draft. It takes a further call, for the last slot.

    Returns:
        The draft.
    """

    def run(slot: int, token: int) -> Generator[Call, Outputs, Outputs]:
        return (yield Call(engine, cache, slot, [token], ONE_SLOT))

    room = min(room, cache.store.capacity - len(seq.tokens) - 1)
    return chaining(run, seq, room=room, length=length, sample=sample, keep_logits=keep_logits)


def chaining(
    run: Run,
    seq: Sequence,
    *,
    room: int,
    length: Length,
    sample: bool = False,
    keep_logits: bool = False,
) -> Generator[Call, Outputs, Draft]:
    """Yield the calls that draft tokens after the pending one, until the length policy ends the draft.

    Args:
        run: runs the pending token in slot 0, and each drafted token in the slot after.
        seq: the sequence.
        room: how many tokens are worth drafting, and have room.
        length: the policy.
        sample: sample the tokens if the request samples, and state the distributions in the draft; otherwise take the
            likeliest token.
        keep_logits: keep the logits of each slot in the draft. It takes a further call, for the last slot.

    Returns:
        The draft.
    """
    tokens, probs, logits, sampling = [seq.pending], {}, {}, seq.sampling
    sample = sample and not sampling.greedy
    for slot in range(min(length.begin(), room)):
        outputs = yield from run(slot, tokens[-1])
        if keep_logits:
            logits[slot] = _logits(outputs)
        if not length.takes(outputs):
            break
        if sample:
            assert outputs.logits_NV is not None
            probs[slot] = sampling.probs(outputs.logits_NV[0])
            rng = sampling.rng.at(len(seq.tokens) + slot, Use.DRAFT)
            tokens.append(rng.pick(probs[slot]))
            probability = probs[slot][tokens[-1]]
        else:
            tokens.append(outputs.ids_N[0])
            probability = outputs.top(0)[1][0] if length.reads_probability else 1.0
        if not length.goes_on(probability):
            break
    if keep_logits and len(tokens) - 1 not in logits:
        outputs = yield from run(len(tokens) - 1, tokens[-1])
        logits[len(tokens) - 1] = _logits(outputs)
    return Draft.chain(tokens, probs, logits)


def _logits(outputs: Outputs) -> np.ndarray:
    """Return a copy of the logits of an engine of one slot, [V]."""
    assert outputs.logits_NV is not None
    row: np.ndarray = outputs.logits_NV[0].copy()
    return row
