"""Text to tokens and back, by the tokenizer files of a bundle."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from .chat import ChatOptions, ChatTemplate, Message, read_templates, special_tokens
from .errors import BundleError, PromptError

Prompt = str | Iterable[int] | Iterable[Message]


class Text:
    """A tokenizer and, if the model has one, its chat template."""

    def __init__(self, directory: Path) -> None:
        """Load the tokenizer from a bundle's directory.

        Raises:
            BundleError: `tokenizer.json` is missing or cannot be read.
        """
        file = directory / "tokenizer.json"
        try:
            self.tokenizer = Tokenizer.from_file(str(file))
        except Exception as e:  # The library raises Exception itself.
            raise BundleError(f"{file} cannot be read ({e}); upgrade tokenizers, or compile again") from e
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        config = directory / "tokenizer_config.json"
        self.config: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
        self.chat = ChatTemplate(read_templates(directory, self.config), special_tokens(self.config))

    def encode(self, prompt: Prompt) -> list[int]:
        """Turn a prompt into token ids.

        Args:
            prompt: text, to which the tokenizer adds its special tokens; messages, which the chat template renders; or
                token ids, which are taken as they are.

        Raises:
            PromptError: an item is not a token id, or the messages cannot be rendered.
        """
        if isinstance(prompt, str):
            return list(self.tokenizer.encode(prompt).ids)
        items: list[Any] = list(prompt)
        if items and all(isinstance(i, Mapping) for i in items):
            return list(self.tokenizer.encode(self.render(items), add_special_tokens=False).ids)
        size = self.tokenizer.get_vocab_size()
        for i in items:
            if not isinstance(i, int) or i < 0:
                raise PromptError(f"{i!r} is not a token id; pass text, token ids in 0..{size - 1}, or messages")
        return items

    def render(self, messages: Sequence[Message], options: ChatOptions | None = None) -> str:
        """Write a conversation as text that ends where the model's answer begins.

        Args:
            messages: dicts with `role` and `content`.
            options: tools, documents and the like; None is an ordinary conversation.

        Raises:
            PromptError: there is no chat template, it fails on these messages, or the options do not go together.
        """
        return self.chat.render(messages, options or ChatOptions())

    def decode(self, tokens: list[int]) -> str:
        """Turn token ids into text, without special tokens."""
        return str(self.tokenizer.decode(tokens))

    def pieces(self, tokens: Iterable[int]) -> Iterator[tuple[int, str]]:
        """Yield each token with the text that it completes: "" while a character is still partial."""
        stream = DecodeStream(skip_special_tokens=True)
        for token in tokens:
            yield token, stream.step(self.tokenizer, token) or ""
