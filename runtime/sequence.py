"""The state of a decode: tokens, rows, and one invariant.

Between steps `len(tokens) == len(cache) + 1`: every token has its row of keys and values but the last, the pending
one, which is chosen and not yet run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import Protocol

from .sampling import Sampling


class KVStore(Protocol):
    """Where the rows of one cache lie."""

    capacity: int

    def move(self, start: int, rows: Tokens[int]) -> None:
        """Copy `rows`, ascending, to `start`, `start + 1`, …"""


class Cache:
    """Rows of keys and values, each under the token that made it. Rows past the end are scratch."""

    def __init__(self, store: KVStore, tokens: Tokens[int] = ()) -> None:
        self.store = store
        self.tokens = list(tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def sync(self, tokens: list[int]) -> list[int]:
        """Drop the rows that are no prefix of `tokens`; return the tokens that have no row yet.

        Nothing else shortens a cache: a rejected draft, a full acceptance and a conversation's second turn all
        come down to this.
        """
        held = len(self.tokens)
        if self.tokens != tokens[:held]:
            held = next(i for i, (a, b) in enumerate(zip(self.tokens, [*tokens, None], strict=False)) if a != b)
            del self.tokens[held:]
        return tokens[held:]

    def commit(self, tokens: Tokens[int], slots: Tokens[int]) -> None:
        """Commit the rows that a run left in `slots`, whose tokens are `tokens`."""
        rows = len(self.tokens)
        if slots and slots[-1] >= len(slots):  # else they are the first ones, and lie where they belong
            self.store.move(rows, [rows + slot for slot in slots])
        self.tokens += tokens


@dataclass
class Sequence:
    """What is decoded so far, how its tokens are chosen, and how many it may become."""

    tokens: list[int]
    cache: Cache
    sampling: Sampling = field(default_factory=Sampling)
    limit: int = sys.maxsize

    @property
    def pending(self) -> int:
        assert len(self.tokens) == len(self.cache) + 1
        return self.tokens[-1]

    @property
    def room(self) -> int:
        """Tokens that are worth drafting: the last one of all comes with the target's own answer."""
        return max(0, self.limit - len(self.tokens) - 1)
