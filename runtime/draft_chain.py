"""Draft a chain with an engine, one token a call."""

from __future__ import annotations

from .call import Call
from .draft import ONE_SLOT, Draft
from .engine import Engine
from .rng import Use
from .sequence import Cache, Sequence


def draft_chain(engine: Engine, seq: Sequence, cache: Cache, *, count: int, threshold: float, sample: bool) -> Draft:
    """Draft tokens after the pending one until there are `count`, or the engine is in doubt.

    The engine's rows are scratch, past the end of its cache. The last drafted token has no row.

    Args:
        engine: an engine of one slot.
        seq: the sequence.
        cache: the engine's cache, with the rows of all tokens but the pending one.
        count: drafted tokens at most. The end of the request and of the cache may leave room for fewer.
        threshold: drafting stops after a token to which the engine gave a smaller probability.
        sample: sample the tokens if the request samples, and state the distributions in the draft; otherwise take the
            engine's likeliest token.
    """
    tokens, probs = [seq.pending], {}
    for slot in range(min(count, seq.room, cache.store.capacity - len(seq.tokens) - 1)):
        outputs = Call(engine, cache, slot, tokens[-1:], ONE_SLOT).run()
        if sample and not seq.sampling.greedy:
            assert outputs.logits_NV is not None
            probs[slot] = seq.sampling.probs(outputs.logits_NV[0])
            rng = seq.sampling.rng.at(len(seq.tokens) + slot, Use.DRAFT)
            tokens.append(rng.pick(probs[slot]))
            probability = probs[slot][tokens[-1]]
        else:
            tokens.append(outputs.ids_N[0])
            probability = outputs.top(0)[1][0] if threshold else 1.0
        if probability < threshold:
            break
    return Draft.chain(tokens, probs)
