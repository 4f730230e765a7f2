"""Answers that a grammar allows, by llguidance: a JSON schema, a regular expression or a Lark grammar.

V  vocabulary
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PromptError, SpeccWarning, check_unicode, first_line, printable
from ..extras import package
from . import Processor

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

NO_ANSWER = "NoExtensionBias"  # What llguidance says where no token may follow, and the text must not end.
COMPILED = 8  # Grammars that a bundle's tokenizer keeps, so that a request with a known one starts at once.


class Language(StrEnum):
    """A language that a grammar is written in, by the option that takes it."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"


class Grammar(Processor):
    """A processor that forbids each token after which no allowed answer is possible.

    Where an answer may end, an end-of-sequence token is allowed. After one, nothing else is. llguidance follows the
    text. For the slots of a draft it goes forward along a path, and back again.
    """

    looks_ahead = True

    def __init__(self, option: str, matcher: LLMatcher, vocab_size: int, eos: Collection[int]) -> None:
        """Begin before the first new token.

        Args:
            option: the option that holds the grammar.
            matcher: the grammar at its beginning. The processor keeps it and changes its state.
            vocab_size: V.
            eos: the end-of-sequence tokens, at least one.
        """
        self.option, self.matcher, self.size, self.eos = option, matcher, vocab_size, frozenset(eos)
        self._ended = False  # Whether the text has an end-of-sequence token.
        self._path: list[int] = []  # The tokens after the text that the matcher has taken.
        self._forced: Sequence[int] | None = None  # What `forced` returned for this text.

    @property
    def complete(self) -> bool:
        """Tell whether the text is a whole answer by the grammar."""
        self._goes_to(())
        return self._ended or bool(self.matcher.is_accepting())

    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        if self._ended or not self.eos.isdisjoint(path):
            ends = list(self.eos)
            numbers = logits_V[ends]
            logits_V.fill(-np.inf)
            logits_V[ends] = numbers
        elif self._goes_to(path):  # No rule can accept another path, so nothing needs to be said after it.
            logits_V[~self._allowed()] = -np.inf

    def allows(self, path: Sequence[int], token: int) -> bool:
        if self._ended or not self.eos.isdisjoint(path):
            return token in self.eos
        if not self._goes_to(path):
            return True
        if token in self.eos:
            return bool(self.matcher.is_accepting())
        if not self.matcher.validate_tokens([token]):
            return False
        forced = self._forced_after(path)  # Of the ways to write what is forced, a mask allows the tokenizer's own.
        return not forced or token == forced[0]

    def likeliest(self, path: Sequence[int], logits_V: np.ndarray, token: int) -> int | None:
        forced = self._rest_of_forced(path)
        if forced:
            token = forced[0]  # It is the only one.
        elif not self.allows(path, token):
            if self._ended or not self.eos.isdisjoint(path):
                return super().likeliest(path, logits_V, token)
            ids = np.flatnonzero(self._allowed())  # Mostly few, so that the logits need no copy.
            if not len(ids):
                return None
            token = int(ids[logits_V[ids].argmax()])
        return None if logits_V[token] == -np.inf else token

    def commit(self, tokens: Sequence[int]) -> None:
        for count, token in enumerate(tokens):
            if self._ended or token in self.eos:
                self._ended = True
            elif not self._goes_to(tokens[: count + 1]):
                self._check()
                raise PromptError(
                    f"{self.option} does not allow token {token}; use an acceptance rule that is lossless"
                )
        self._path.clear()
        self._forced = None

    def truncate(self, tokens: Sequence[int]) -> int:
        if self._ended:
            return 0
        unknown = next((i for i, token in enumerate(tokens) if not 0 <= token < self.size), len(tokens))
        end = next((i for i, token in enumerate(tokens[:unknown]) if token in self.eos), unknown)
        if self._forced and end and list(tokens[:end]) == self._forced[:end]:
            count = end
        else:
            self._goes_to(())
            count = int(self.matcher.validate_tokens(list(tokens[:end])))
        # The target decides about an end. It is at most one slot, and llguidance knows only the first end here.
        return count + 1 if count == end < unknown else count

    def forced(self) -> Sequence[int]:
        if self._ended:
            return ()
        self._goes_to(())
        if self.matcher.is_stopped():
            return tuple(self.eos)[:1]
        self._forced = self.matcher.compute_ff_tokens()
        return self._forced

    def _goes_to(self, path: Sequence[int]) -> bool:
        """Take the matcher to the end of `path`, and return whether the grammar allows it."""
        common = 0
        while common < min(len(path), len(self._path)) and path[common] == self._path[common]:
            common += 1
        if common < len(self._path):
            self.matcher.rollback(len(self._path) - common)
            del self._path[common:]
        rest = list(path[common:])
        count = self.matcher.try_consume_tokens(rest) if rest else 0
        self._path += rest[:count]
        return count == len(rest)

    def _allowed(self) -> np.ndarray:
        """Return which tokens may follow the path that the matcher is at the end of: [V] bool."""
        bits = np.frombuffer(self.matcher.compute_bitmask(), np.uint8)
        self._check()
        return np.unpackbits(bits, count=self.size, bitorder="little").view(np.bool_)

    def _rest_of_forced(self, path: Sequence[int]) -> Sequence[int]:
        """Return the tokens that must follow a path, if what follows the text is forced further than that.

        Where the path ends with all of the forced tokens, more may be forced by the last of them.
        """
        if self._forced and (not path or path == self._forced[: len(path)]):
            return self._forced[len(path) :]
        return ()

    def _forced_after(self, path: Sequence[int]) -> Sequence[int]:
        """Return the tokens that must follow a path, at whose end the matcher is."""
        if self._forced is not None and not path:
            return self._forced
        return self._rest_of_forced(path) or self.matcher.compute_ff_tokens()

    def _check(self) -> None:
        """Raise PromptError if the library has failed, as it does at a limit of its own."""
        if self.matcher.is_error():
            raise PromptError(f"{self.option}: {reason_of(self.matcher)}; simplify it")


class Grammars:
    """What compiles grammars for the tokenizer of one bundle."""

    def __init__(self, tokenizer_json: Callable[[], str], vocab_size: int, eos: Collection[int]) -> None:
        """Keep what the library's tokenizer is made from. That takes some tenths of a second, at the first grammar.

        Args:
            tokenizer_json: returns the text of `tokenizer.json`.
            vocab_size: how many logits the model has.
            eos: the end-of-sequence tokens.
        """
        self.json, self.vocab_size, self.eos = tokenizer_json, vocab_size, tuple(eos)
        self._tokenizer: LLTokenizer | None = None
        self._compiled: dict[tuple[Language, str], LLMatcher] = {}
        self._lock = Lock()  # Guards both. Requests are made by any thread.

    def compile(self, language: Language, source: Any) -> Grammar:
        """Compile a grammar.

        Args:
            language: what it is written in.
            source: its text; a JSON schema may be a dict.

        Raises:
            PromptError: llguidance is not installed, or it refuses the grammar, or the model has no end.
        """
        try:
            import llguidance  # noqa: F401
        except ImportError as e:
            raise PromptError(
                f"{language} needs llguidance, which is not installed; pip install {package('grammar')}"
            ) from e
        if not self.eos:
            raise PromptError(f"{language} needs a model with an end-of-sequence token, and this one has none")
        key = language, _text(language, source)
        matcher = self._compiled.get(key)
        if matcher is None:
            matcher = self._new_matcher(*key)
            with self._lock:
                self._compiled[key] = matcher
                while len(self._compiled) > COMPILED:
                    del self._compiled[next(iter(self._compiled))]
        return Grammar(language.value, matcher.deep_copy(), self.vocab_size, self.eos)

    def _new_matcher(self, language: Language, text: str) -> LLMatcher:
        """Compile a grammar, and check that it has a first token.

        Raises:
            PromptError: the library refuses the grammar, or no answer follows it.
        """
        from llguidance import LLMatcher

        matcher = LLMatcher(self._take_tokenizer(language), _GRAMMARS[language](LLMatcher, text), log_level=0)
        if matcher.is_error():
            raise PromptError(f"{language} is refused: {reason_of(matcher)}; change it")
        trial = matcher.deep_copy()
        trial.compute_bitmask()
        if trial.is_error():
            raise PromptError(f"{language} is refused: {reason_of(trial)}; change it")
        for warning in matcher.get_grammar_warnings():
            warnings.warn(f"{language}: {' '.join(warning.split())}", SpeccWarning, stacklevel=3)
        return matcher

    def _take_tokenizer(self, language: Language) -> LLTokenizer:
        """Return the library's tokenizer, which is made once.

        Raises:
            PromptError: the library cannot read the bundle's tokenizer.
        """
        from llguidance import LLTokenizer

        with self._lock:
            if self._tokenizer is None:
                try:
                    self._tokenizer = LLTokenizer(self.json(), n_vocab=self.vocab_size, eos_token=list(self.eos))
                except (KeyboardInterrupt, SystemExit):
                    raise
                except BaseException as e:  # A panic of the library is not an Exception.
                    remedy = "decode without a grammar"
                    raise PromptError(
                        f"{language}: llguidance cannot use this tokenizer ({first_line(e)}); {remedy}"
                    ) from e
            return self._tokenizer


_GRAMMARS = {
    Language.JSON_SCHEMA: lambda library, text: library.grammar_from_json_schema(text),
    Language.REGEX: lambda library, text: library.grammar_from_regex(text),
    Language.LARK: lambda library, text: library.grammar_from_lark(text),
}


def _text(language: Language, source: Any) -> str:
    """Return the text of a grammar.

    Raises:
        PromptError: it is of another type, or a JSON schema is not JSON.
    """
    if language is Language.JSON_SCHEMA:
        try:
            schema = json.loads(source) if isinstance(source, str) else source
            text = json.dumps(schema)
        except (TypeError, ValueError, RecursionError) as e:
            raise PromptError(f"json_schema is not JSON ({first_line(e)}); give a JSON object or its text") from e
        if not isinstance(schema, Mapping):
            raise PromptError(f"json_schema is {text[:60]}; give a JSON object")
        return text
    if not isinstance(source, str) or not source:
        raise PromptError(f"{language} is {source!r}; give text")
    check_unicode(source, language)
    return source


def reason_of(matcher: LLMatcher) -> str:
    """Return a matcher's error in one line: its first line, and what is wrong where that only says where it is."""
    message = str(matcher.get_error())
    if message.startswith(NO_ANSWER):
        return "no answer is possible by it"
    first = first_line(ValueError(message))
    details = [line.removeprefix("error: ") for line in message.splitlines() if line.startswith("error: ")]
    return f"{first} {printable(details[0])}" if first.endswith(":") and details else first
