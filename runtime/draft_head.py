"""Run a recurrent trained head over the committed text, beside the target's states.

Row i of the head's cache is token i + 1 beside the target's state at token i, as in EAGLE (Li et al. 2024,
arXiv:2401.15077). The rows of drafted tokens are scratch: they stand on the head's own states, and are run again once
the target has verified the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from collections.abc import Sequence as Items
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from .block import LOOP
from .call import Call
from .draft import ONE_SLOT, Outputs
from .engine import Engine
from .sequence import PART, TARGET, Cache, Sequence
from .tree import Tree

# Makes what a head reads from the target's states [rows, S], and from the number of the first of these rows.
ReadStates = Callable[[np.ndarray, int], np.ndarray]


class HeadRoot(NamedTuple):
    """The result of the call that ran the pending token.

    Attributes:
        cache: the head's cache, with a row for each token of the text but the first. It is the target's if the head
            does not attend, and so has no rows.
        outputs: the outputs of the pending token, as those of an engine of one slot.
    """

    cache: Cache
    outputs: Outputs


class HeadRows(NamedTuple):
    """Tokens that the head's cache lacks.

    Attributes:
        cache: the head's cache.
        keys: the number of each row, by `row_keys`.
        tokens: the tokens, of which the last one is pending.
        states: what the head reads beside them, [tokens, S].
    """

    cache: Cache
    keys: list[int]
    tokens: list[int]
    states: np.ndarray


def reading_engines(draft: Engine, *readers: Engine) -> list[Engine]:
    """Return the engines that can run the tokens of the text, narrowest first.

    Args:
        draft: the engine of drafts. It is left out if it leaves out layers, which only the tokens of the text run.
        readers: the other engines of the head.
    """
    engines = (draft, *readers) if draft.block.layers == readers[0].block.layers else readers
    return sorted(engines, key=lambda engine: engine.slots)


def as_they_are(states_NS: np.ndarray, start: int) -> np.ndarray:
    """Return the states of rows as the target gave them."""
    return states_NS


def running_head(
    engines: Items[Engine], seq: Sequence, read: ReadStates = as_they_are, keep: str = ""
) -> Generator[Call, Outputs, HeadRoot | None]:
    """Yield the calls that run the tokens which the head's cache lacks, and commit them.

    Args:
        engines: those of one head that run chains, narrowest first.
        seq: the sequence. Its cache has the target's states.
        read: makes what the head reads.
        keep: the name under which the head's cache keeps what the head returned of each row; empty keeps nothing.

    Returns:
        The last row; None if the text has no token with a state before it.
    """
    block = engines[0].block
    if block.cache == TARGET:  # The head has no rows, so the pending token alone runs.
        states, rows = seq.cache.states.get(block.model), len(seq.tokens) - 1
        if states is None or not rows:
            return None
        inputs = {"state": read(states[rows - 1 : rows], rows - 1)}
        last = yield Call(engines[0], seq.cache, 0, seq.tokens[rows:], ONE_SLOT, inputs)
        return HeadRoot(seq.cache, last.only(0))
    left = yield from feeding_head(engines, seq, engines[-1].slots, read, keep)
    if left is None:
        return None
    width = len(left.keys)
    engine = next(engine for engine in engines if engine.slots >= width)
    outputs = yield Call(engine, left.cache, 0, left.tokens, Tree.chain(width), {"state": left.states})
    left.cache.commit(left.keys, range(width), _kept(outputs, keep))
    return HeadRoot(left.cache, outputs.only(0 if engine.block.last_row else width - 1, width - 1))


def feeding_head(
    engines: Items[Engine], seq: Sequence, most: int, read: ReadStates = as_they_are, keep: str = ""
) -> Generator[Call, Outputs, HeadRows | None]:
    """Yield the calls that run tokens which the head's cache lacks, and commit them, until few are left.

    Args:
        engines: those of one head that run chains, narrowest first.
        seq: the sequence. Its cache has the target's states.
        most: the number of tokens that may be left, one at least.
        read: makes what the head reads.
        keep: see `running_head`.

    Returns:
        The tokens that are left, the pending one at least; None if the text has no token with a state before it.
    """
    block = engines[0].block
    states, rows = seq.cache.states.get(block.model), len(seq.tokens) - 1
    if states is None or not rows:
        return None
    cache, keys = seq.caches[block.cache], row_keys(seq.tokens)
    keys_left = [*cache.sync(keys[:-1]), keys[-1]]  # The last row runs in any case, for its outputs.
    while len(keys_left) > most:
        start, width = len(cache), min(engines[-1].slots, len(keys_left) - 1)
        engine = next(engine for engine in engines if engine.slots >= width)
        tokens = seq.tokens[start + 1 : start + 1 + width]
        inputs = {"state": read(states[start : start + width], start)}
        outputs = yield Call(engine, cache, 0, tokens, Tree.chain(width), inputs)
        cache.commit(keys_left[:width], range(width), _kept(outputs, keep))
        keys_left = keys_left[width:]
    start = len(cache)
    return HeadRows(cache, keys_left, seq.tokens[start + 1 :], read(states[start : start + len(keys_left)], start))


def _kept(outputs: Outputs, name: str) -> Outputs | None:
    """Return what a cache keeps of a run: what the head returned of each row, under a name; None if there is none."""
    if not name or outputs.next_state_NS is None:
        return None
    return replace(outputs, states={name: outputs.next_state_NS})


def draft_rows(engines: Iterable[Engine], tokens: Items[int]) -> dict[str, list[int]]:
    """Return the numbers of the rows that a drafter's own caches shall have of a text, by the name of the cache.

    Args:
        engines: the drafter's engines.
        tokens: the text. Its last token runs in any case.
    """
    rows: dict[str, list[int]] = {}
    for engine in engines:
        block = engine.block
        if LOOP in block.inputs:
            rows |= {name: list(tokens[:-1]) for name in loop_caches(engine)}
        elif block.store != TARGET:
            rows[block.cache] = (row_keys(tokens) if block.inputs else list(tokens))[:-1]
    return rows


def loop_caches(engine: Engine) -> list[str]:
    """Return the names of the caches that an engine of one loop runs over: each loop has rows of its own."""
    cache = engine.block.cache
    return [f"{cache}{PART}{loop}" if loop else cache for loop in range(engine.runner.inputs[LOOP].shape[-1])]


def row_keys(tokens: Items[int]) -> list[int]:
    """Return for each row of a head's cache a number. Two texts have equal rows as far as their numbers are equal.

    A row depends on all tokens up to its own. The first row's own token is the second one, so its number holds both.
    """
    return [tokens[0] << 32 | tokens[1], *tokens[2:]] if len(tokens) > 1 else []
