"""A session is loaded once for a key, and goes with the last engine that uses it."""

from __future__ import annotations

import gc

from specc.runtime.engines.session_cache import SessionCache


class Session:
    """Something that can be loaded."""


def test_a_session_is_loaded_once_for_a_key_and_again_after_its_last_user_went() -> None:
    cache, loads = SessionCache(), 0

    def load() -> Session:
        nonlocal loads
        loads += 1
        return Session()

    first, second = cache.get(("a", 1), load), cache.get(("a", 1), load)
    other = cache.get(("a", 2), load)
    assert first is second and other is not first and loads == 2 and set(cache) == {("a", 1), ("a", 2)}
    del first
    gc.collect()
    assert len(cache) == 2
    del second, other
    gc.collect()
    assert len(cache) == 0
    cache.get(("a", 1), load)
    assert loads == 3
