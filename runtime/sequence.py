"""The state of a request: its tokens, their rows of keys and values, and one invariant.

Between steps `len(seq.tokens) == len(seq.cache) + 1`. Each token has a row but the last one. That one is pending: it is
chosen, and the next run of the target computes its row.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field
from itertools import compress, count
from operator import ne
from typing import Protocol

import numpy as np

from .draft import Accepted, Draft, Outputs, Verified
from .processors import Processing
from .sampling import Sampling

TARGET = "target"  # The name of the cache of the target's rows.
PART = ":"  # It stands in the name of a cache with rows of its own, behind that of the cache that they are shaped as.


class KVStore(Protocol):
    """A buffer with the rows of one cache. Behind the committed rows it has scratch rows, which engines write.

    A store of keys and values can drop rows from any place on. One that holds a running state cannot, so no caller may
    assume it: `rewind` says what is left.

    Attributes:
        capacity: how many rows fit.
        uncommitted: bytes of rows that the machine has promised and not given yet.
    """

    capacity: int

    @property
    def uncommitted(self) -> int: ...

    def commit(self, start: int, slots: Tokens[int]) -> None:
        """Keep the rows of some slots of the last run.

        Args:
            start: how many rows were committed before. The run's slots lie behind them.
            slots: the slots, in ascending order. Their rows become the rows from `start` on.
        """

    def rewind(self, rows: int) -> int:
        """Go back to a state with `rows` committed rows or fewer, and return how many are left."""

    def copy(self, source: KVStore, rows: int) -> int:
        """Replace all rows by the first ones of another store.

        Args:
            source: the other store. It has `rows` committed rows or more.
            rows: how many rows to copy.

        Returns:
            `rows`, or 0 if this store cannot copy from the other one. Then it is as it was.
        """


def displaced(slots: Tokens[int]) -> bool:
    """Tell whether slots, in ascending order, lie elsewhere than right behind the committed rows."""
    return bool(slots) and slots[-1] >= len(slots)


def common_prefix(tokens: Tokens[int], others: Tokens[int]) -> int:
    """Return with how many equal tokens two texts begin."""
    return next(compress(count(), map(ne, tokens, others)), min(len(tokens), len(others)))


class Rows:
    """A store of keys and values, which can drop rows from any place on. It copies none from another store."""

    @property
    def uncommitted(self) -> int:
        """Return 0, since the memory of all rows is there from the start."""
        return 0

    def rewind(self, rows: int) -> int:
        """Return `rows`: the rows behind them become scratch as they are."""
        return rows

    def copy(self, source: KVStore, rows: int) -> int:
        """Return 0, since nothing is copied."""
        return 0


class Mover(Protocol):
    """A runner that moves the rows which it wrote."""

    def commit(self, start: int, slots: Tokens[int]) -> None:
        """Copy the rows of slots behind row `start`, ascending, to consecutive rows from `start` on."""


class RowsOfLastRunner(Rows):
    """A store on a device, whose rows the runner moves that ran last.

    Attributes:
        last: the runner that wrote scratch rows last.
    """

    last: Mover | None = None

    def commit(self, start: int, slots: Tokens[int]) -> None:
        """Copy the rows of slots behind row `start`, ascending, to consecutive rows from `start` on."""
        if displaced(slots):
            assert self.last is not None, "no engine ran before rows were moved"
            self.last.commit(start, slots)


class Released:
    """A store without rows, for caches of a model that is closed."""

    capacity, uncommitted = 0, 0

    def commit(self, start: int, slots: Tokens[int]) -> None:
        """Keep nothing, since there are no rows."""

    def rewind(self, rows: int) -> int:
        """Return 0, since there are no rows."""
        return 0

    def copy(self, source: KVStore, rows: int) -> int:
        """Return 0, since there is no room for rows."""
        return 0


class Cache:
    """The committed rows of a store, each with the token that it belongs to. Rows past the end are scratch.

    Attributes:
        store: the rows of keys and values.
        tokens: the token of each committed row.
        states: what trained heads read of each committed row, [capacity, size] by the name of the head.
        target: the target's cache of the same text, whose rows some blocks read; None if this is the target's.
        is_beside: whether the rows stand in the target's store, in layers of their own. Then they stay where they are,
            since only calls of the target move and copy the rows of that store.
    """

    def __init__(self, store: KVStore, tokens: Tokens[int] = (), target: Cache | None = None) -> None:
        self.store = store
        self.tokens = list(tokens)
        self.states: dict[str, np.ndarray] = {}
        self.target = target
        self.is_beside = target is not None and target.store is store

    def __len__(self) -> int:
        return len(self.tokens)

    def sync(self, tokens: list[int]) -> list[int]:
        """Drop the rows from the first one on that differs from `tokens`, and return the tokens without a row.

        Nothing else but `copy` shortens a cache. A rejected draft, a draft that was accepted whole, and the second turn
        of a conversation all need nothing more.
        """
        rows = len(self.tokens)
        if self.tokens != tokens[:rows]:
            rows = common_prefix(self.tokens, tokens)
            if not self.is_beside:
                rows = self.store.rewind(rows)
            del self.tokens[rows:]
        return tokens[rows:]

    def copy(self, source: Cache, rows: int) -> int:
        """Replace all rows by the first ones of another cache, with their tokens.

        Args:
            source: the other cache.
            rows: how many rows to copy, at most as many as it has.

        Returns:
            `rows`, or 0 if the store cannot copy from the other one. Then this cache is as it was.
        """
        if self.is_beside:
            return 0
        copied = self.store.copy(source.store, rows)
        if copied:
            self.tokens[:] = source.tokens[:copied]
            for name, states in source.states.items():
                self._states(name, states)[:copied] = states[:copied]
        return copied

    def commit(self, tokens: Tokens[int], slots: Tokens[int], outputs: Outputs | None = None) -> None:
        """Commit rows of the last run over this cache.

        Args:
            tokens: the tokens that ran, one a slot. Of a run that dropped some, those that it kept.
            slots: the slots to commit, in ascending order. Their rows move to the end of the committed ones.
            outputs: those of the run. The states among them are kept with the rows.
        """
        start = len(self.tokens)
        if not self.is_beside:
            kept_slots = None if outputs is None else outputs.kept_slots
            self.store.commit(start, slots if kept_slots is None else kept_slots[list(slots)].tolist())
        self.tokens += [tokens[slot] for slot in slots]
        if outputs is not None and outputs.states:
            for name, states in outputs.states.items():
                self._states(name, states)[start : start + len(slots)] = states[list(slots)]
        elif self.states:  # A trained head that reads these rows drafts badly, and not by another text's states.
            for own in self.states.values():
                own[start : start + len(slots)] = 0

    def _states(self, name: str, like: np.ndarray) -> np.ndarray:
        """Return the array of a head's states, and make it if it is not there, with rows like those of `like`."""
        if name not in self.states:
            self.states[name] = np.zeros((self.store.capacity, like.shape[-1]), like.dtype)
        return self.states[name]


class Caches(dict[str, Cache]):
    """The caches of one text by name: the target's, and those of draft models. Each is made when it is first used."""

    def __init__(self, make_store: Callable[[str], KVStore]) -> None:
        """Make no cache yet.

        Args:
            make_store: makes the rows of a cache by its name.
        """
        super().__init__()
        self._make_store = make_store

    def __missing__(self, name: str) -> Cache:
        target = None if name == TARGET else self[TARGET]
        cache = self[name] = Cache(self._make_store(name), target=target)
        return cache

    def copy_rows(self, name: str, source: Cache, rows: int) -> None:
        """Replace all rows of a cache by the first ones of another text's.

        Args:
            name: the cache.
            source: the other text's cache of that name.
            rows: how many rows to copy, at most as many as it has.
        """
        if self[name].copy(source, rows):
            for cache in self.values():
                if cache.is_beside and cache.target is self[name]:
                    cache.tokens.clear()  # The copy has replaced the rows of the whole store.


@dataclass
class Sequence:
    """The text of one request, with its caches.

    Attributes:
        tokens: the prompt and the new tokens so far; the last one is pending.
        caches: the caches of this text by name. A drafter with a model of its own finds that one's rows here.
        cache: that of the target, with the rows of all tokens but the pending one.
        sampling: how the request chooses tokens.
        limit: how many tokens the sequence may have at the end.
        processing: the processors of the request; None if it has none.
    """

    tokens: list[int]
    caches: Mapping[str, Cache]
    sampling: Sampling = field(default_factory=Sampling)
    limit: int = sys.maxsize
    processing: Processing | None = None
    cache: Cache = field(init=False)

    def __post_init__(self) -> None:
        self.cache = self.caches[TARGET]

    def move(self, caches: Mapping[str, Cache]) -> None:
        """Use other caches, whose rows may belong to another text as yet."""
        self.caches = caches
        self.cache = caches[TARGET]

    @property
    def pending(self) -> int:
        """The last token, which is chosen and has no row yet."""
        assert len(self.tokens) == len(self.cache.tokens) + 1
        return self.tokens[-1]

    @property
    def room(self) -> int:
        """How many tokens are worth drafting. The last one before `limit` comes from the target itself."""
        return max(0, self.limit - len(self.tokens) - 1)

    def verified(self, outputs: Outputs, draft: Draft) -> Verified:
        """Return the target's outputs for a draft, with how this request chooses tokens."""
        processed = self.processing.of(outputs, draft) if self.processing else None
        return Verified(outputs, self.sampling, draft.tree, len(self.tokens), processed)

    def append(self, draft: Draft, accepted: Accepted, outputs: Outputs | None = None) -> None:
        """Commit the accepted slots of `draft`: their rows, their tokens, and the target's token after them.

        The target must have run `draft` over this cache as its last run.

        Args:
            draft: the draft.
            accepted: what was accepted of it.
            outputs: those of the run, with the states that trained heads read.
        """
        self.cache.commit(draft.tokens, accepted.slots, outputs)
        self.tokens += [*(draft.tokens[slot] for slot in accepted.slots[1:]), accepted.token]
