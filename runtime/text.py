"""Text to tokens and back, by the tokenizer files of a bundle."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from . import normalizer_check, tokenizer_file, tokenizer_time
from .bundle import Bundle
from .chat import FOLDER, TEMPLATE, ChatOptions, ChatTemplate, Message, read_templates, special_tokens
from .detokenizer import Decoder, Detokenizer
from .errors import BundleError, PromptError, SpeccWarning, check_unicode, first_line, printable
from .panics import LibraryErrors
from .processors.grammar import Grammars

TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
PREFIX = 8  # Characters for each token that fits, of the first prefix of a long text. A token of English has about 4.
DEEPEST_BATCH = 2  # Batches of one prompt that may stand in each other, as in an array [1, 1, n].
Prompt = str | Iterable[int] | Iterable[Message] | Mapping[str, Any]


class Text:
    """A tokenizer and, if the model has one, its chat template."""

    clean_up = False  # Whether spaces before punctuation are no part of a decoded text.

    def __init__(self, bundle: Bundle) -> None:
        """Load the tokenizer from those files of a bundle that its manifest lists.

        Raises:
            BundleError: `tokenizer.json` is not listed, or a file cannot be read.
        """
        file = bundle.file(TOKENIZER)

        def unreadable(reason: str) -> BundleError:
            return BundleError(f"{file} cannot be read ({reason}); upgrade tokenizers, or compile again")

        with LibraryErrors(unreadable):
            data = file.read_bytes()
            tokenizer_file.check(data)
            self.tokenizer = Tokenizer.from_buffer(data)
            normalizer_check.check(self.tokenizer.normalizer)
            self._may_be_slow = tokenizer_time.may_be_slow(self.tokenizer)
            self.tokenizer.no_truncation()
            self.tokenizer.no_padding()
        config = _read_config(bundle.file(CONFIG)) if CONFIG in bundle.manifest.files else {}
        try:
            templates = read_templates({name: bundle.file(name) for name in bundle.manifest.files}, config)
        except (OSError, ValueError) as e:
            raise BundleError(f"a chat template in {bundle.path} cannot be read ({e}); compile again") from e
        _warn_of_unlisted(bundle)
        model = bundle.manifest.model
        self.grammars = Grammars(self.tokenizer.to_str, model.vocab_size, model.eos_token_ids)
        self.chat = ChatTemplate(templates, special_tokens(config))
        self.clean_up = config.get("clean_up_tokenization_spaces") is True

    @property
    def has_chat_template(self) -> bool:
        """Whether messages can be rendered."""
        return bool(self.chat.templates)

    def encode(self, prompt: Prompt, options: ChatOptions | None = None, context: int | None = None) -> list[int]:
        """Turn a prompt into token ids.

        Args:
            prompt: text, to which the tokenizer adds its special tokens; messages (or one), which the chat template
                renders; token ids, in a list or an array of integers [n] or [1, n], which are taken as they are; or
                a dict with such ids as `input_ids`, which tokenizers of transformers return.
            options: what the chat template gets beside the messages.
            context: tokens that fit. A text that has far more is refused before all of it is tokenised.

        Raises:
            PromptError: the prompt is none of these, or the messages cannot be rendered, or there are options and no
                messages.
        """
        if isinstance(prompt, Mapping):
            prompt = prompt.get("input_ids", [prompt])
        items: Any = prompt if isinstance(prompt, str) else _items(prompt)
        if items and all(isinstance(i, Mapping) for i in items):
            return self._tokenize(self.render(items, options), context, special=False)
        if options is not None and options != ChatOptions():
            raise PromptError("tools, documents and other options of a chat need messages; give a list of them")
        if isinstance(items, str):
            return self._tokenize(items, context, special=True)
        size = self.tokenizer.get_vocab_size()
        for i in items:
            if not isinstance(i, int) or isinstance(i, bool) or i < 0:
                raise PromptError(f"{i!r} is not a token id; pass text, token ids in 0..{size - 1}, or messages")
        return list(items)

    def _tokenize(self, text: str, context: int | None, *, special: bool) -> list[int]:
        """Turn text into token ids.

        A text that is too long is refused by a prefix of it, since the tokenizer takes some 250 bytes for each
        character: 5 GB for 20 MB. The prefix grows until it has twice the tokens that fit, so no bound on the
        characters of a token is needed. What follows a prefix changes how its last word is divided, but not half of
        its tokens.

        Args:
            text: the text.
            context: tokens that fit; None is no bound.
            special: add the special tokens that begin and end a text.

        Raises:
            PromptError: the text has a lone surrogate, or far more tokens than fit, or the tokenizer fails.
        """
        check_unicode(text, "the prompt")
        length = len(text) if context is None else PREFIX * context
        while context is not None and length < len(text):
            if len(self._ids(text[:length], special=False)) >= 2 * context:
                raise PromptError(
                    f"the prompt has more than {2 * context} tokens and the cache {context} rows; shorten it, "
                    "or compile with a larger --max-seq-len"
                )
            length *= 2
        return self._ids(text, special=special)

    def word_tokens(self, text: str) -> list[int]:
        """Turn a part of a text into token ids, without the special tokens that begin and end a text.

        Raises:
            PromptError: the tokenizer fails.
        """
        return self._ids(text, special=False)

    def _ids(self, text: str, *, special: bool) -> list[int]:
        """Turn text into token ids, however long it is.

        Raises:
            PromptError: the tokenizer fails.
        """

        def failed(reason: str) -> PromptError:
            return PromptError(f"the tokenizer fails on this prompt: {reason}; pass token ids")

        with LibraryErrors(failed):
            if self._may_be_slow:
                return tokenizer_time.encode_in_time(self.tokenizer, text, special=special)
            return list(self.tokenizer.encode(text, add_special_tokens=special).ids)

    def render(self, messages: Sequence[Message], options: ChatOptions | None = None) -> str:
        """Write a conversation as text that ends where the model's answer begins.

        Args:
            messages: dicts with `role` and `content`.
            options: tools, documents and the like; None is an ordinary conversation.

        Raises:
            PromptError: there is no chat template, it fails on these messages, or the options do not go together.
        """
        return self.chat.render(messages, options or ChatOptions())

    @cached_property
    def decoder(self) -> Decoder:
        """The decoding of whole texts."""
        return Decoder(self.tokenizer, self.clean_up)

    def decode(self, tokens: Sequence[int]) -> str:
        """Turn token ids into text, without special tokens, as transformers does."""
        return self.decoder.decode(tokens)

    def pieces(self, tokens: Iterable[int], context: Sequence[int] = ()) -> Iterator[tuple[int, str]]:
        """Yield each token with the text that it completes: "" while a later token may still change it.

        At the end the last token comes once more if text was held back.

        Args:
            tokens: the tokens of an answer.
            context: the tokens of its prompt.
        """
        detokenizer, token = Detokenizer(self.decoder, context), None
        for token in tokens:
            yield token, detokenizer.add(token)
        rest = detokenizer.finish() if token is not None else ""
        if token is not None and rest:
            yield token, rest


def _items(prompt: Any, depth: int = 0) -> list[Any]:
    """Return a prompt's items as a list: integers of Python for those of an array.

    Args:
        prompt: items, or a batch of one prompt.
        depth: how many batches the prompt stands in.

    Raises:
        PromptError: it has no items or no order, is a batch of prompts, or stands in batches of batches.
    """
    if depth > DEEPEST_BATCH:
        raise PromptError("a prompt is a list of lists of lists; pass token ids as a list or an array [n]")
    if isinstance(prompt, (bytes, bytearray, memoryview)) or not isinstance(prompt, Iterable):
        raise PromptError(f"a prompt is text, token ids or messages, not {type(prompt).__name__}")
    if isinstance(prompt, (set, frozenset)):
        raise PromptError(f"a prompt is a {type(prompt).__name__}, which has no order; pass token ids as a list")
    items = prompt.tolist() if hasattr(prompt, "tolist") else list(prompt)
    if not isinstance(items, list):
        raise PromptError("a prompt is an array of no dimension; pass token ids as a list or an array [n]")
    items = [item.tolist() if hasattr(item, "tolist") else item for item in items]
    if items and all(isinstance(item, (list, tuple)) for item in items):
        if len(items) > 1:
            raise PromptError(f"a prompt is a batch of {len(items)}; pass one prompt at a time")
        return _items(items[0], depth + 1)
    return items


def _warn_of_unlisted(bundle: Bundle) -> None:
    """Warn of settings or templates beside the bundle's files that the manifest does not list, so that none is read."""
    folder = sorted((bundle.path / FOLDER).glob("*.jinja"))
    present = [bundle.path / CONFIG, bundle.path / TEMPLATE, *folder]
    names = [file.relative_to(bundle.path).as_posix() for file in present if file.exists()]
    if unlisted := [printable(name) for name in names if name not in bundle.manifest.files]:
        text = f"{bundle.path}: the manifest does not list {', '.join(unlisted)}, so it is not read; compile again"
        warnings.warn(text, SpeccWarning, stacklevel=3)


def _read_config(file: Path) -> dict[str, Any]:
    """Read the settings of a tokenizer.

    Raises:
        BundleError: the file is not a JSON object.
    """
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e:
        raise BundleError(f"{file} cannot be read ({first_line(e)}); compile again") from e
    if not isinstance(config, dict):
        raise BundleError(f"{file} is not a JSON object; compile again")
    return config
