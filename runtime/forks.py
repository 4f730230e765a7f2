"""Put objects in order in the child of a fork. The child has no thread of its parent, but the locks of such threads."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Forked(Protocol):
    """An object that a thread may be using when the process forks."""

    def after_fork(self) -> None:
        """Put itself in order, in the child. No other thread runs there."""


_watched: WeakSet[Forked] = WeakSet()


def watch(forked: Forked) -> None:
    """Call `after_fork` of an object in the child of each fork, as long as something else keeps the object."""
    _watched.add(forked)


def _after_fork() -> None:
    for forked in list(_watched):
        forked.after_fork()


if hasattr(os, "register_at_fork"):  # Windows has no forks.
    os.register_at_fork(after_in_child=_after_fork)
