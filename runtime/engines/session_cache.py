"""Loaded sessions that several engines share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar
from weakref import WeakValueDictionary

T = TypeVar("T")


class SessionCache:
    """A map from a key to a loaded session. A session goes when the last engine that uses it goes.

    A session whose number of slots is free serves chains of several widths, so their engines load it once.
    """

    def __init__(self) -> None:
        self._sessions: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()

    def get(self, key: Hashable, load: Callable[[], T]) -> T:
        """Return the session of that key, and load it if it is not there.

        Args:
            key: what tells one session from another: the file, and the options that it was loaded with.
            load: loads the session. Two threads must not load one key at once.
        """
        session: T | None = self._sessions.get(key)
        if session is None:
            session = self._sessions[key] = load()
        return session

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._sessions)

    def __len__(self) -> int:
        return len(self._sessions)
