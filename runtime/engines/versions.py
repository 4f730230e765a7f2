"""Versions of libraries, compared by their numbers."""

from __future__ import annotations


def numbers(version: str) -> tuple[int, ...]:
    """Return the numbers at the start of a version, so that 0.10.0 is newer than 0.9.1."""
    parts = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)
