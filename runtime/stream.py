"""Tokens to text, piece by piece: whole characters, stop strings, and the end."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import compress
from operator import index
from typing import Any

from .decoder import Decoder
from .detokenizer import Detokenizer
from .errors import PromptError
from .processors.logprobs import Logprobs, TokenLogprobs
from .stats import Stats
from .stop_strings import StopStrings, check_stop_strings
from .text import Text


@dataclass(frozen=True, kw_only=True)
class Generation:
    """The whole answer to a request.

    Attributes:
        text: the new text, without the prompt.
        token_ids: the new tokens.
        finish_reason: `eos`, `stop` or `length`.
        stats: counts and times of the request.
        stop_reason: the stop string or the stop token that ended the answer; None if neither did.
        logprobs: an entry for each token, if the request asks for log-probabilities.
    """

    text: str
    token_ids: list[int]
    finish_reason: str
    stats: Stats
    stop_reason: str | int | None = None
    logprobs: list[TokenLogprobs] | None = None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """When an answer ends.

    Attributes:
        max_new_tokens: tokens at most, even in the middle of a step.
        eos: the end-of-sequence tokens; empty if the request ignores them.
        stop: strings that end the text. One that is a special token's is met by that token.
        stop_token_ids: tokens that end the text.
    """

    max_new_tokens: int
    eos: Collection[int] = ()
    stop: tuple[str, ...] = ()
    stop_token_ids: Collection[int] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise PromptError(f"max_new_tokens is {self.max_new_tokens}; give 1 or more")
        check_stop_strings(self.stop)
        for token in self.stop_token_ids:
            if isinstance(token, bool) or not hasattr(token, "__index__"):
                raise PromptError(f"the stop token {token!r} is not a token id; give integers")

    def check_stop_tokens(self, vocab_size: int) -> None:
        """Check that each stop token can come.

        Raises:
            PromptError: one is not in the vocabulary.
        """
        for token in self.stop_token_ids:
            if not 0 <= index(token) < vocab_size:
                raise PromptError(f"stop_token_ids: {token!r} is not a token id; give 0 to {vocab_size - 1}")


def one_or_several(values: Any, kind: type, name: str) -> tuple[Any, ...]:
    """Return an option that is one value or several as a tuple. None is no value.

    Args:
        values: the value of the option.
        kind: the type of one value.
        name: the option's name, for the error message.

    Raises:
        PromptError: the option is neither one value nor several.
    """
    if values is None:
        return ()
    if isinstance(values, kind):
        return (values,)
    try:
        if isinstance(values, Iterable) and not isinstance(values, (bytes, bytearray)):
            return tuple(values)
    except TypeError:
        pass  # An array without a dimension has the methods of an Iterable, and no items.
    raise PromptError(f"{name} is {values!r}; give a list")


def token_limit(max_new_tokens: int | None, room: int) -> int:
    """Return how many tokens an answer has at most.

    Args:
        max_new_tokens: the limit of the request; None is as many as there is room for.
        room: the tokens that the context has room for.

    Raises:
        PromptError: the limit is not an integer.
    """
    if max_new_tokens is None:
        return room
    try:
        if not isinstance(max_new_tokens, bool):
            return min(index(max_new_tokens), room)
    except TypeError:
        pass
    raise PromptError(f"max_new_tokens is {max_new_tokens!r}; give an integer")


class Stream:
    """An iterator over pieces of an answer's text, for `for` and for `async for`.

    An end-of-sequence token, or a stop token, counts as a token and has no text. A stop string ends the text, and is
    left out. The tokens of a stop string count.

    Attributes:
        token_ids: the new tokens so far, those of a whole step at a time.
        ended: whether the answer is whole.
        finish_reason: `eos`, `stop` or `length`; valid at the end.
        stop_reason: the stop string or the stop token that ended the answer; None if neither did.
        prompt: the tokens of the prompt.
        prompt_tokens: how many there are.
        max_new_tokens: tokens of the answer at most; the context may leave room for fewer than the request asks for.
        stats: counts and times of the request so far.
        decoder: takes the steps of the request; None once no step is to come.
    """

    def __init__(
        self,
        decoder: Decoder,
        text: Text,
        stats: Stats,
        ending: Ending,
        prompt: Sequence[int] = (),
        lock: AbstractContextManager[Any] | None = None,
        logprobs: Logprobs | None = None,
    ) -> None:
        """Prepare the stream. Nothing runs before the first piece is asked for.

        Args:
            decoder: takes the steps of the request.
            text: the tokenizer.
            stats: the counts of the request, to which the stream adds its tokens.
            ending: when the answer ends.
            prompt: the tokens before the answer, which its text continues.
            lock: held while a step runs, and by `rest` until the end. A thread may enter it again.
            logprobs: what records log-probabilities; None if the request asks for none.
        """
        self._lock = nullcontext() if lock is None else lock
        self.token_ids: list[int] = []
        self.ended = False
        self.finish_reason = "length"
        self.stop_reason: str | int | None = None
        self.prompt, self.prompt_tokens, self.max_new_tokens = prompt, len(prompt), ending.max_new_tokens
        self.stats = stats
        self.decoder: Decoder | None = decoder
        self._ending, self._logprobs = ending, logprobs
        self._special: Mapping[int, str] = text.decoder.special if ending.stop else {}
        self._detokenizer = Detokenizer(text.decoder, prompt)
        self._pieces: deque[str] = deque()  # Those that were not taken yet.
        self._stops = StopStrings(ending.stop)
        self._text = ""  # What may be the beginning of a stop string.
        self._shown: list[bool] = []  # Whether each character of `_text` is a part of the answer.

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        with self._lock:
            self._fill()
            if not self._pieces:
                raise StopIteration
            return self._pieces.popleft()

    def __aiter__(self) -> AsyncIterator[str]:
        return self

    async def __anext__(self) -> str:
        import asyncio  # It takes long to import, and few programs need it.

        while True:
            with contextlib.suppress(IndexError):
                return self._pieces.popleft()
            if self.ended:
                raise StopAsyncIteration
            # The thread takes no piece: whoever stops waiting for it, at a timeout, loses none.
            await asyncio.to_thread(self._fill)

    def _fill(self) -> None:
        """Run steps until a piece waits, or the answer has ended."""
        with self._lock:
            while not self._pieces and not self.ended:
                self._pieces.extend(self.advance())

    def rest(self) -> Generation:
        """Run to the end, and return the answer with all text that was not taken yet."""
        with self._lock:
            pieces = list(self._pieces)
            self._pieces.clear()
            while not self.ended:
                pieces += self.advance()
        return self.generation("".join(pieces))

    def generation(self, text: str) -> Generation:
        """Return the answer so far, with a text."""
        return Generation(
            text=text,
            token_ids=self.token_ids,
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            stats=self.stats,
            logprobs=self.logprobs,
        )

    @property
    def logprobs(self) -> list[TokenLogprobs] | None:
        """An entry for each of `token_ids`, if the request asks for log-probabilities."""
        return None if self._logprobs is None else self._logprobs.tokens[: len(self.token_ids)]

    def advance(self) -> list[str]:
        """Run one step, and return the pieces of text that it completes. `ended` tells whether it was the last one."""
        if self.decoder is None:
            self.ended = True
            return []
        return self.take(self.decoder.advance())

    def take(self, tokens: Sequence[int]) -> list[str]:
        """Add the new tokens of a step, and return the pieces of text that they complete."""
        pieces, ending, token_ids = [], self._ending, self.token_ids
        for token in tokens:
            token_ids.append(token)
            self.stats.new_tokens += 1
            if token in ending.eos:
                self.finish_reason, self.ended = "eos", True
            elif token in ending.stop_token_ids:
                self.finish_reason, self.stop_reason, self.ended = "stop", token, True
            else:
                piece = self._detokenizer.add(token)
                pieces.append(self._cut(piece, token) if ending.stop else piece)
                if len(token_ids) == ending.max_new_tokens:
                    self.ended = True
            if self.ended:
                break
        if self.ended:
            self.stop()
            rest = "" if isinstance(self.stop_reason, str) else self._detokenizer.finish()
            if rest:
                pieces.append(self._cut(rest, token_ids[-1]) if ending.stop else rest)
            pieces.append("".join(compress(self._text, self._shown)))
        return [piece for piece in pieces if piece]

    def stop(self) -> None:
        """Run no further step. The engines and caches of the request are not held any longer."""
        self.decoder = None

    def _cut(self, piece: str, token: int) -> str:
        """Return the text that is safe to show. Hold back what may be the beginning of a stop string, and end at one.

        Stop strings are looked for in the text with its special tokens. These are no part of the answer.

        Args:
            piece: text that was completed, or nothing.
            token: the token that completed it. If it is special it may be a part of a stop string.
        """
        special = "" if piece else self._special.get(token, "")
        text = self._text + piece + special
        flags = [*self._shown, *[True] * len(piece), *[False] * len(special)]
        if not self._stops.add(piece + special):
            safe = len(text) - self._stops.overlap
        else:
            safe, self.stop_reason = self._stops.first(text)
            self.finish_reason, self.ended = "stop", True
            text = text[:safe]
        self._text, self._shown = text[safe:], flags[safe:]
        return "".join(compress(text[:safe], flags))
