"""The options of a request that concern processors: their checks, and the processors that they ask for."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from numbers import Integral
from typing import TYPE_CHECKING, Any

from ..errors import PromptError, check_unicode
from ..real_number import real
from . import Processing, Processor
from .bad_words import BadWords
from .grammar import Grammar, Language
from .logit_bias import LogitBias
from .logprobs import Logprobs
from .min_new_tokens import MinNewTokens
from .penalties import FrequencyPenalty, RepetitionPenalty

if TYPE_CHECKING:
    from ..manifest import ModelSpec
    from ..text import Text

MOST_BIAS = 100.0  # As in OpenAI's API: it decides against any logits.
MOST_PENALTY = 2.0  # As in OpenAI's API.
MOST_DIGITS = 20  # Of a token id that is text. Python refuses to read some thousands.
MOST_REPETITION = 1000.0  # It decides against any logits, and no logit overflows in float32.


@dataclass(frozen=True, kw_only=True)
class ProcessorOptions:
    """The options of a request that concern processors, as a user gives them. None is the neutral value.

    `Session.stream` describes each.
    """

    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Mapping[int, float] | None = None
    bad_words: str | Collection[str | Sequence[int]] | None = None
    min_new_tokens: int | None = None
    logprobs: int | None = None
    json_schema: str | Mapping[str, Any] | None = None
    regex: str | None = None
    lark: str | None = None

    def make(self, prompt: Sequence[int], text: Text, model: ModelSpec, ends: Collection[int]) -> Processing | None:
        """Make the processors of a request, in the order of transformers; None if it needs none.

        Bias, penalties, bad words, the least length, the grammar. (transformers has no frequency penalty. It comes
        after the repetition penalty, as in vLLM.)

        Args:
            prompt: the tokens of the prompt.
            text: the tokenizer.
            model: the model.
            ends: the tokens that end this request.

        Raises:
            PromptError: an option is out of range, or the grammar is refused.
        """
        size, eos = model.vocab_size, model.eos_token_ids
        repetition = _number("repetition_penalty", self.repetition_penalty, 1.0)
        if not 1 / MOST_REPETITION <= repetition <= MOST_REPETITION:
            raise PromptError(
                f"repetition_penalty is {repetition:g}; give a number from {1 / MOST_REPETITION:g} to "
                f"{MOST_REPETITION:g}, where 1 changes nothing"
            )
        frequency = _bounded("frequency_penalty", self.frequency_penalty, MOST_PENALTY)
        presence = _bounded("presence_penalty", self.presence_penalty, MOST_PENALTY)
        biases, words = _biases(self.logit_bias, size), _words(self.bad_words, text, size)
        least = _count("min_new_tokens", self.min_new_tokens) or 0
        count = _count("logprobs", self.logprobs)
        grammar = self.grammar(text)
        processors: list[Processor] = []
        if biases:
            processors.append(LogitBias(biases))
        if repetition != 1:
            processors.append(RepetitionPenalty(repetition, prompt))
        if frequency or presence:
            processors.append(FrequencyPenalty(frequency, presence, size))
        if words:
            processors.append(BadWords(words, prompt, eos))
        possible_ends = [token for token in ends if 0 <= token < size]  # Others have no logit.
        if least and possible_ends:
            processors.append(MinNewTokens(least, possible_ends))
        if grammar:
            processors.append(grammar)
        if count is not None and count > size:
            raise PromptError(f"logprobs is {count}, and the vocabulary has {size} tokens; give fewer")
        if not processors and count is None:
            return None
        return Processing(size, processors, None if count is None else Logprobs(count))

    def grammar(self, text: Text) -> Grammar | None:
        """Compile the grammar of the request; None if it has none.

        Args:
            text: the tokenizer.

        Raises:
            PromptError: it has several, or the library refuses it.
        """
        sources = {
            Language.JSON_SCHEMA: self.json_schema,
            Language.REGEX: self.regex,
            Language.LARK: self.lark,
        }
        present = {language: source for language, source in sources.items() if source is not None}
        if len(present) > 1:
            raise PromptError(f"{' and '.join(present)} exclude each other; give one grammar")
        return next((text.grammars.compile(language, source) for language, source in present.items()), None)


def _number(name: str, value: Any, neutral: float) -> float:
    """Return an option that is a finite number; `neutral` if it is None. Raises PromptError."""
    if value is None:
        return neutral
    number = real(value)
    if number is None or not isfinite(number):
        raise PromptError(f"{name} is {value!r}; give a finite number, where {neutral:g} changes nothing")
    return number


def _bounded(name: str, value: Any, most: float) -> float:
    """Return an option that is a number from -most to most; 0 if it is None. Raises PromptError."""
    number = _number(name, value, 0.0)
    if abs(number) > most:
        raise PromptError(f"{name} is {number:g}; give a number from -{most:g} to {most:g}")
    return number


def _count(name: str, value: Any) -> int | None:
    """Return an option that is a whole number, or None. Raises PromptError."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < 0:
        raise PromptError(f"{name} is {value!r}; give a whole number, 0 or more")
    return int(value)


def _biases(logit_bias: Any, vocab_size: int) -> dict[int, float]:
    """Return the biases that are not 0, by token. Raises PromptError."""
    if logit_bias is None:
        return {}
    if not isinstance(logit_bias, Mapping):
        raise PromptError(f"logit_bias is {logit_bias!r}; give a dict of token ids and numbers")
    biases = {
        _token("logit_bias", token, vocab_size): _bounded(f"logit_bias: the bias of token {token}", bias, MOST_BIAS)
        for token, bias in logit_bias.items()
    }
    return {token: bias for token, bias in biases.items() if bias}


def _token(name: str, token: Any, vocab_size: int) -> int:
    """Return a token id, which JSON may have as text. Raises PromptError."""
    is_digits = isinstance(token, str) and token.isdecimal() and len(token) <= MOST_DIGITS
    number = int(token) if is_digits else token
    if isinstance(number, bool) or not isinstance(number, Integral) or not 0 <= int(number) < vocab_size:
        raise PromptError(f"{name}: {token!r} is not a token id; give 0 to {vocab_size - 1}")
    return int(number)


def _words(bad_words: Any, text: Text, vocab_size: int) -> list[tuple[int, ...]]:
    """Return the token sequences of bad words, each once. Raises PromptError.

    A word of text has two: with and without a space in front, as in vLLM. Tokenizers write them by different tokens.
    """
    words = [bad_words] if isinstance(bad_words, str) else bad_words
    if words is None:
        return []
    sequences: list[tuple[int, ...]] = []
    for word in _items(words):
        if isinstance(word, str):
            check_unicode(word, "a bad word")
            variants = [text.word_tokens(variant) for variant in (word, f" {word.lstrip()}" if word else "")]
        elif isinstance(word, Sequence) and not isinstance(word, (bytes, bytearray, memoryview)):
            variants = [[_token("bad_words", token, vocab_size) for token in word]]
        else:
            raise PromptError(f"bad_words has {word!r}; give words, or lists of token ids")
        if not all(variants):
            raise PromptError(f"bad_words has {word!r}, which has no tokens; leave it out")
        sequences += [tuple(tokens) for tokens in variants]
    return list(dict.fromkeys(sequences))


def _items(words: Any) -> list[Any]:
    """Return bad words as a list. Raises PromptError."""
    try:
        if isinstance(words, Collection):
            return list(words)
    except TypeError:
        pass  # An array without a dimension has the methods of a Collection, and no items.
    raise PromptError(f"bad_words is {words!r}; give a list of words")
