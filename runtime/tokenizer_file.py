"""A check of `tokenizer.json` for what would end the process, before the library tokenizers reads it."""

from __future__ import annotations

import json
import re
from typing import Any

PREFIX = re.compile(rb'"continuing_subword_prefix"\s*:\s*(null\b)?')


def check(data: bytes) -> None:
    """Check that the merges of a byte-pair encoding fit the prefix of its later parts.

    The library cuts the prefix off the second part of each merge. Where the part does not begin with it, the cut may
    fall inside a character, and the library aborts the process while it describes the error.

    Args:
        data: the content of the file.

    Raises:
        ValueError: a merge does not fit, or the file is not JSON.
    """
    if [match[1] for match in PREFIX.finditer(data)] == [b"null"]:
        return  # Most files have no prefix, and large ones take long to parse.
    model = _field(json.loads(data), "model")
    prefix, merges = _field(model, "continuing_subword_prefix"), _field(model, "merges")
    if not isinstance(prefix, str) or not isinstance(merges, list):
        return
    for merge in merges:
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if isinstance(parts, list) and len(parts) == 2 and not str(parts[1]).startswith(prefix):
            raise ValueError(f"its merge {parts[1]!r} does not begin with the prefix {prefix!r}")


def _field(value: Any, name: str) -> Any:
    """Return a field of an object, or None if it is none or lacks the field."""
    return value.get(name) if isinstance(value, dict) else None
