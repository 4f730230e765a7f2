"""Draft a chain with an engine, one token a call."""

from __future__ import annotations

from collections.abc import Callable, Generator

import numpy as np

from .call import Call
from .draft import ONE_SLOT, Draft, Outputs
from .draws import DrawnProbs, Draws
from .engine import Engine
from .lengths import Length
from .rng import Use
from .sequence import Cache, Sequence

# Makes the call that runs a token in a slot of the chain, from the slot, the token and the outputs of the slot before.
MakeCall = Callable[[int, int, Outputs | None], Call]


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

    def make_call(slot: int, token: int, before: Outputs | None) -> Call:
        return Call(engine, cache, slot, (token,), ONE_SLOT)

    room = min(room, cache.store.capacity - len(seq.tokens) - 1)
    return chaining(make_call, seq, room=room, length=length, sample=sample, keep_logits=keep_logits)


def chaining(
    make_call: MakeCall,
    seq: Sequence,
    *,
    room: int,
    length: Length,
    first: Outputs | None = None,
    sample: bool = False,
    keep_logits: bool = False,
) -> Generator[Call, Outputs, Draft]:
    """Yield the calls that draft tokens after the pending one, until the length policy ends the draft.

    Args:
        make_call: makes the call of an engine of one slot. The pending token is in slot 0, drafted ones come after it.
        seq: the sequence.
        room: how many tokens are worth drafting, and have room.
        length: the policy.
        first: the outputs of slot 0, if it has run.
        sample: sample the tokens if the request samples, and state the distributions in the draft; otherwise take the
            likeliest token.
        keep_logits: keep the logits of each slot in the draft. It takes a further call if the last slot has not run.

    Returns:
        The draft.
    """
    tokens, values, logits, sampling = [seq.pending], [1.0], {}, seq.sampling
    draws: dict[int, Draws] = {}
    sample = sample and not sampling.greedy
    outputs, stops, reads = first, bool(length.stops), length.reads_probability
    for slot in range(min(length.begin(), room)):
        if slot or outputs is None:
            outputs = yield make_call(slot, tokens[-1], outputs)
        if keep_logits:
            logits[slot] = _logits(outputs)
        if stops and not length.takes(outputs):
            break
        if sample:
            assert outputs.logits_NV is not None
            rng = sampling.rng.at(len(seq.tokens) + slot, Use.DRAFT)
            draws[slot] = sampling.draws(outputs.logits_NV[0], rng)
            tokens.append(draws[slot].pick())
            probability = draws[slot].probability(tokens[-1]) if stops or reads else 1.0
        else:
            tokens.append(outputs.ids_N[0])
            probability = outputs.best_probability(0) if reads else 1.0
        if reads:
            values.append(values[-1] * float(probability))
        if stops and not length.goes_on(probability):
            break
    last = len(tokens) - 1
    if keep_logits and last not in logits:
        if last or outputs is None:
            outputs = yield make_call(last, tokens[-1], outputs)
        logits[last] = _logits(outputs)
    return Draft.chain(tokens, DrawnProbs(draws), logits, values if reads else ())


def _logits(outputs: Outputs) -> np.ndarray:
    """Return a copy of the logits of an engine of one slot, [V]."""
    assert outputs.logits_NV is not None
    row: np.ndarray = outputs.logits_NV[0].copy()
    return row
