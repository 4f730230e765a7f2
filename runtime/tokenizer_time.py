"""A bound on the time of a tokenizer whose patterns may take very long. Its file comes from a stranger."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

SECONDS = 20.0  # of one call
ESCAPE = re.compile(r"\\.", re.DOTALL)
CLASS = re.compile(r"\[\^?\]?[^\[\]]*\]")
REPEATED_GROUP = re.compile(r"\)(?:[*+]|\{\d*,?\d*\})")
UNBOUNDED = re.compile(r"[*+]|\{\d+,\}")
MOST_UNBOUNDED = 2  # parts of a branch that match any number of characters; three may take cubic time


def may_be_slow(tokenizer: Tokenizer) -> bool:
    """Tell whether a pattern of a tokenizer's normaliser or pre-tokeniser may take far more time than its text is long.

    Oniguruma, the library's engine for patterns, goes back and tries other ways to match. A repeated group may have
    exponentially many. The answer is yes for some patterns that are fast, too.
    """
    parts = [tokenizer.normalizer, tokenizer.pre_tokenizer]
    patterns = [p for part in parts if part is not None for p in _patterns(json.loads(part.__getstate__()))]
    return any(_is_slow(pattern) for pattern in patterns)


def _patterns(state: Any) -> Iterator[str]:
    """Yield the regular expressions in the state of a part of a tokenizer."""
    if isinstance(state, dict):
        if isinstance(pattern := state.get("Regex"), str):
            yield pattern
        for value in state.values():
            yield from _patterns(value)
    elif isinstance(state, list):
        for value in state:
            yield from _patterns(value)


def _is_slow(pattern: str) -> bool:
    text, shorter = ESCAPE.sub("x", pattern), ""
    while text != shorter:  # Classes may contain classes.
        text, shorter = CLASS.sub("x", text), text
    return bool(REPEATED_GROUP.search(text)) or any(
        len(UNBOUNDED.findall(branch)) > MOST_UNBOUNDED for branch in text.split("|")
    )


def encode_in_time(tokenizer: Tokenizer, text: str, *, special: bool) -> list[int]:
    """Turn text into token ids, in a thread that is left alone once it takes more than SECONDS.

    Nothing stops the library, so the thread goes on. It does no harm but for the processor that it keeps busy.

    Raises:
        TimeoutError: it takes longer.
        BaseException: what the library raises.
    """
    results: list[list[int]] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:  # A batch does not hold Python's lock. `encode` would.
            results.append(tokenizer.encode_batch([text], add_special_tokens=special)[0].ids)
        except BaseException as e:  # The caller raises it.
            errors.append(e)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"its patterns take more than {SECONDS:g} s")
    if errors:
        raise errors[0]
    return results[0]
