"""Draft a tree with an engine that has, or shares, the rows of the text: the call for its root."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple

from .call import Call, Growth
from .draft import Outputs
from .engine import Engine, extending
from .sequence import Cache, Sequence


class Root(NamedTuple):
    """The result of the call that ran the pending token.

    Attributes:
        committed: the rows of the tree that the cache has committed.
        outputs: the outputs of the last call.
        row: the pending token's row in them.
    """

    committed: int
    outputs: Outputs
    row: int


def running_root(
    engine: Engine, prefill: Engine | None, seq: Sequence, cache: Cache, growth: Growth
) -> Generator[Call, Outputs, Root]:
    """Yield the calls for the pending token, and before it for the tokens that the draft's own cache lacks.

    Args:
        engine: a Frontier engine.
        prefill: an engine that fills the draft's own cache with many tokens; None if the cache is the target's.
        seq: the sequence.
        cache: the engine's cache.
        growth: the first part of the tree, which is the pending token.
    """
    if prefill is None:
        outputs = yield growth.call(engine, cache, [seq.pending])
        return Root(0, outputs, 0)
    feed = [*cache.sync(seq.tokens[:-1]), seq.pending]
    if len(feed) > engine.slots:
        yield from extending(prefill, cache, feed[:-1])
        feed = feed[-1:]
    outputs, row = yield from extending(engine, cache, feed)
    return Root(1, outputs, row)
