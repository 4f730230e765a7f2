"""Tokens to text as they come: whole characters, stop strings, the end."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .stats import Stats
from .text import Text


@dataclass(frozen=True)
class Generation:
    """What a request gave. `text` is the new text alone; `finish_reason` is eos, stop or length."""

    text: str
    token_ids: list[int]
    finish_reason: str
    stats: Stats


class Stream:
    """Pieces of text; `token_ids`, `finish_reason` and `stats` tell the whole when it ends.

    An end-of-sequence token counts as a token and has no text; a stop string is cut off.
    """

    def __init__(
        self,
        steps: Iterator[list[int]],
        text: Text,
        stats: Stats,
        max_new_tokens: int,
        eos: Collection[int],
        stop: tuple[str, ...],
    ) -> None:
        self.token_ids: list[int] = []
        self.finish_reason = "length"
        self.stats = stats
        self._steps, self._eos, self._stop, self._limit = steps, eos, stop, max_new_tokens
        self._pieces = self._cut(text.pieces(self._tokens()))

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __next__(self) -> str:
        return next(self._pieces)

    def rest(self) -> Generation:
        """All that is left, at once."""
        text = "".join(self)
        return Generation(text, self.token_ids, self.finish_reason, self.stats)

    def _tokens(self) -> Iterator[int]:
        for step in self._steps:
            for token in step:
                self.token_ids.append(token)
                self.stats.new_tokens += 1
                if token in self._eos:
                    self.finish_reason = "eos"
                    return
                yield token
                if len(self.token_ids) == self._limit:
                    return

    def _cut(self, pieces: Iterator[tuple[int, str]]) -> Iterator[str]:
        """Hold back what may turn out to be the beginning of a stop string."""
        held = ""
        for _, piece in pieces:
            held += piece
            if ends := [at for s in self._stop if (at := held.find(s)) >= 0]:
                self.finish_reason = "stop"
                held = held[: min(ends)]
                break
            safe = len(held) - max((_overlap(held, s) for s in self._stop), default=0)
            if safe:
                yield held[:safe]
            held = held[safe:]
        if held:
            yield held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
