"""The state of a request: its tokens, their rows of keys and values, and one invariant.

Between steps `len(seq.tokens) == len(seq.cache) + 1`. Each token has a row but the last one. That one is pending: it is
chosen, and the next run of the target computes its row.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from typing import Protocol

from .draft import Accepted, Draft, Outputs, Verified
from .processors import Processing
from .sampling import Sampling


class KVStore(Protocol):
    """A buffer with the rows of keys and values of one cache.

    Attributes:
        capacity: how many rows fit.
    """

    capacity: int

    def move(self, start: int, rows: Tokens[int]) -> None:
        """Copy `rows`, which are in ascending order, to row `start` and those after it."""


class Released:
    """A store without rows, for the cache of a session that is closed."""

    capacity = 0

    def move(self, start: int, rows: Tokens[int]) -> None:
        """Move nothing, since there are no rows."""


class Cache:
    """The committed rows of a store, each with the token that it belongs to. Rows past the end are scratch."""

    def __init__(self, store: KVStore, tokens: Tokens[int] = ()) -> None:
        self.store = store
        self.tokens = list(tokens)

    def __len__(self) -> int:
        return len(self.tokens)

    def sync(self, tokens: list[int]) -> list[int]:
        """Drop all rows from the first one on that differs from `tokens`, and return the tokens without a row.

        Nothing else shortens a cache. A rejected draft, a draft that was accepted whole, and the second turn of a
        conversation all need nothing more.
        """
        rows = len(self.tokens)
        if self.tokens != tokens[:rows]:
            pairs = zip(self.tokens, [*tokens, None], strict=False)
            rows = next(i for i, (old, new) in enumerate(pairs) if old != new)
            del self.tokens[rows:]
        return tokens[rows:]

    def commit(self, tokens: Tokens[int], slots: Tokens[int]) -> None:
        """Commit rows of the last run over this cache.

        Args:
            tokens: the tokens that ran, one a slot.
            slots: the slots to commit, in ascending order. Their rows move to the end of the committed ones.
        """
        rows = len(self.tokens)
        # Slots 0, 1, … lie at the end of the committed rows already.
        if slots and slots[-1] >= len(slots):
            self.store.move(rows, [rows + slot for slot in slots])
        self.tokens += [tokens[slot] for slot in slots]


@dataclass
class Sequence:
    """The text of one request, with its cache.

    Attributes:
        tokens: the prompt and the new tokens so far; the last one is pending.
        cache: the rows of all tokens but the pending one.
        sampling: how the request chooses tokens.
        limit: how many tokens the sequence may have at the end.
        processing: the processors of the request; None if it has none.
    """

    tokens: list[int]
    cache: Cache
    sampling: Sampling = field(default_factory=Sampling)
    limit: int = sys.maxsize
    processing: Processing | None = None

    @property
    def pending(self) -> int:
        """The last token, which is chosen and has no row yet."""
        assert len(self.tokens) == len(self.cache) + 1
        return self.tokens[-1]

    @property
    def room(self) -> int:
        """How many tokens are worth drafting. The last one before `limit` comes from the target itself."""
        return max(0, self.limit - len(self.tokens) - 1)

    def verified(self, outputs: Outputs, draft: Draft) -> Verified:
        """Return the target's outputs for a draft, with how this request chooses tokens."""
        processed = self.processing.of(outputs, draft) if self.processing else None
        return Verified(outputs, self.sampling, draft.tree, len(self.tokens), processed)

    def append(self, draft: Draft, accepted: Accepted) -> None:
        """Commit the accepted slots of `draft`: their rows, their tokens, and the target's token after them.

        The target must have run `draft` over this cache as its last run.
        """
        self.cache.commit(draft.tokens, accepted.slots)
        self.tokens += [*(draft.tokens[slot] for slot in accepted.slots[1:]), accepted.token]
