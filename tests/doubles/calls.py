"""Calls over rows that have no tokens of their own."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

from specc.runtime.block import Block
from specc.runtime.call import Call, Growth
from specc.runtime.engine import Engine
from specc.runtime.sequence import Cache, KVStore
from specc.runtime.tree import Tree


def call(store: KVStore, past_len: int, tokens: Sequence[int], tree: Tree | Growth | None = None, **block: Any) -> Call:
    """Make a call of an engine that does not exist.

    Args:
        store: the rows.
        past_len: how many rows are committed.
        tokens: one token for each slot.
        tree: how the slots stand; None is a chain.
        block: fields of the engine's block that differ from a chain's.
    """
    shape = tree if tree is not None else Tree.chain(max(1, len(tokens)))
    engine = SimpleNamespace(name="alone", block=Block(Tree.chain(max(1, len(tokens))), **block))
    return Call(cast(Engine, engine), Cache(store, [0] * past_len), 0, tokens, shape)
