"""Token ids to text, token by token: what it writes in all is what the tokenizer decodes from all of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import Any

from tokenizers import Tokenizer

from .errors import BundleError
from .panics import call_library

CONTEXT = 8  # Tokens of a prompt that are decoded with its answer.
KEPT = 4096  # Texts of short runs of tokens that are kept.
PARTIAL = "\ufffd"  # What a decoder writes for bytes that are no character, or not yet one.
# Spaces that the tokenizers of transformers leave out of a text, in the order in which they do.
CLEANED = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")


class Decoder:
    """The whole-text decoding of a tokenizer, as transformers does it: without special tokens.

    Attributes:
        special: the special tokens by their ids. They have no text.
        byte_ids: tokens that are one byte. A run of them is one character or more, or else none of them is a character.
    """

    def __init__(self, tokenizer: Tokenizer, clean_up: bool = False) -> None:
        """Read what there is to know about the tokenizer.

        Args:
            tokenizer: the tokenizer.
            clean_up: leave out spaces before punctuation (`clean_up_tokenization_spaces`). It does not apply to BPE.
        """
        self.tokenizer = tokenizer
        self.clean_up = clean_up and type(tokenizer.model).__name__ != "BPE"
        self.special = {i: t.content for i, t in tokenizer.get_added_tokens_decoder().items() if t.special}
        state: Any = tokenizer.decoder.__getstate__() if tokenizer.decoder else b""
        names = [f"<0x{byte:{form}}>" for byte in range(256) for form in ("02X", "02x")]
        ids = {tokenizer.token_to_id(name) for name in names} if b'"ByteFallback"' in state else set()
        self.byte_ids = frozenset(i for i in ids if i is not None)
        self.decode_again = lru_cache(KEPT)(self.decode)  # For tuples of tokens that are decoded again and again.

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of all these tokens."""
        text: str = call_library(_failed, self.tokenizer.decode, list(tokens))
        if self.clean_up:
            for spaced in CLEANED:
                text = text.replace(spaced, spaced.strip() if spaced != " ' " else "'")
        return text


def _failed(reason: str) -> BundleError:
    return BundleError(f"the tokenizer cannot decode these tokens: {reason}; upgrade tokenizers, or compile again")


class Detokenizer:
    """A text that grows by tokens.

    A piece is released once no later token can change it. So a character waits for its last byte, and a run of byte
    tokens for its end. The text continues that of the prompt: the first word of an answer keeps its space.
    """

    def __init__(self, decoder: Decoder, context: Sequence[int] = ()) -> None:
        """Begin after the prompt.

        Args:
            decoder: decodes whole texts.
            context: the tokens of the prompt; nothing of their text is released.
        """
        self.decoder = decoder
        self._tokens = list(context[_tail(decoder, context) :])
        self._context = len(self._tokens)
        # The text of tokens before `_end` is released. They are decoded from `_start` on with those that follow.
        self._start, self._end = 0, self._context
        self._released: list[str] = []

    def add(self, token: int) -> str:
        """Append a token, and return the text that it completes."""
        self._tokens.append(token)
        if token in self.decoder.byte_ids or token in self.decoder.special:
            return ""
        piece = self._after(self._start, self._end)
        if piece is None or not piece or piece.endswith(PARTIAL):
            return ""
        if self.decoder.clean_up:
            return self._release_words(piece)
        self._start, self._end = self._end, len(self._tokens)
        self._released.append(piece)
        return piece

    def finish(self) -> str:
        """Return the text that was held back, with U+FFFD for what is only a part of a character."""
        whole, released = self._after(0, self._context), "".join(self._released)
        if whole is not None and whole.startswith(released):
            return whole[len(released) :]
        return "" if self.decoder.clean_up else self._after(self._start, self._end) or ""

    def _after(self, start: int, end: int) -> str | None:
        """Return the text of all tokens after `end`, decoded from `start` on; None if they change the text before."""
        before = self.decoder.decode_again(tuple(self._tokens[start:end]))  # Mostly one token.
        text = self.decoder.decode(self._tokens[start:])
        if text.startswith(before):
            return text[len(before) :]
        if not text.startswith(before.rstrip(PARTIAL)):
            return None
        # The prompt ends within a character.
        return text[next(i for i, pair in enumerate(zip_longest(before, text)) if pair[0] != pair[1]) :]

    def _release_words(self, text: str) -> str:
        """Release what is before the last two spaces, since a space may be left out once its word is complete.

        Args:
            text: the whole text after the context.
        """
        released = sum(map(len, self._released))
        piece = text[released : text.rfind(" ", 0, max(text.rfind(" "), 0))] if text.count(" ") > 1 else ""
        if piece:
            self._released.append(piece)
        return piece


def _tail(decoder: Decoder, tokens: Sequence[int]) -> int:
    """Return the index from which a prompt's tokens are decoded: some that have text, and no part of a run of bytes."""
    start = max(0, len(tokens) - CONTEXT)
    while start and (tokens[start] in decoder.byte_ids or not decoder.decode(tokens[start:]).strip()):
        start -= 1
    return start
