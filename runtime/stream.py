"""Tokens to text, piece by piece: whole characters, stop strings, and the end."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from .errors import PromptError
from .stats import Stats
from .text import Text


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The whole answer to a request.

    Attributes:
        text: the new text, without the prompt.
        token_ids: the new tokens.
        finish_reason: `eos`, `stop` or `length`.
        stats: counts and times of the request.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    stats: Stats


@dataclass(frozen=True, kw_only=True)
class Ending:
    """When an answer ends.

    Attributes:
        max_new_tokens: tokens at most, even in the middle of a step.
        eos: the end-of-sequence tokens; empty if the request ignores them.
        stop: strings that end the text.
    """

    max_new_tokens: int
    eos: Collection[int] = ()
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise PromptError(f"max_new_tokens is {self.max_new_tokens}; give 1 or more")
        if "" in self.stop:
            raise PromptError("a stop string is empty; leave it out")


class Stream:
    """An iterator over pieces of an answer's text.

    An end-of-sequence token counts as a token, and has no text. A stop string ends the text, and is left out.

    Attributes:
        token_ids: the new tokens so far.
        finish_reason: `eos`, `stop` or `length`; valid at the end.
        stats: counts and times of the request so far.
    """

    def __init__(self, steps: Iterator[list[int]], text: Text, stats: Stats, ending: Ending) -> None:
        """Prepare the stream. Nothing runs before the first piece is asked for.

        Args:
            steps: the new tokens of each step.
            text: the tokenizer.
            stats: the counts of the request, to which the stream adds its tokens.
            ending: when the answer ends.
        """
        self.token_ids: list[int] = []
        self.finish_reason = "length"
        self.stats = stats
        self._steps, self._ending = steps, ending
        self._pieces = self._cut(text.pieces(self._tokens()))

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def __next__(self) -> str:
        return next(self._pieces)

    def rest(self) -> Generation:
        """Run to the end, and return the answer with all text that was not taken yet."""
        text = "".join(self)
        return Generation(text=text, token_ids=self.token_ids, finish_reason=self.finish_reason, stats=self.stats)

    def _tokens(self) -> Iterator[int]:
        """Yield the tokens that have text, and count all of them."""
        for step in self._steps:
            for token in step:
                self.token_ids.append(token)
                self.stats.new_tokens += 1
                if token in self._ending.eos:
                    self.finish_reason = "eos"
                    return
                yield token
                if len(self.token_ids) == self._ending.max_new_tokens:
                    return

    def _cut(self, pieces: Iterator[tuple[int, str]]) -> Iterator[str]:
        """Yield the text before the first stop string. Hold back what may be the beginning of one."""
        text, stops = "", self._ending.stop
        for _, piece in pieces:
            text += piece
            starts = [text.index(stop) for stop in stops if stop in text]
            if starts:
                self.finish_reason = "stop"
                text = text[: min(starts)]
                break
            safe = len(text) - max((_overlap(text, stop) for stop in stops), default=0)
            if safe:
                yield text[:safe]
            text = text[safe:]
        if text:
            yield text


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are the beginning of `stop`, but not all of it."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
