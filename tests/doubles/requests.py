"""Prompts for toys, and a wait for requests that pause."""

from __future__ import annotations

import time

from specc.runtime.handle import Handle

PROMPT = "the quick brown fox"
PROMPTS = [f"{PROMPT} {number}" for number in range(6)]


def stalled(handle: Handle, running: bool | None = None) -> None:
    """Wait until a request is ahead of its reader as far as it may be, with caches or without if that is said."""
    limit = time.monotonic() + 30
    request = handle.submission
    while not request.paused or (running is not None and request.running != running):
        assert time.monotonic() < limit, "the request goes on"
        time.sleep(0.001)
