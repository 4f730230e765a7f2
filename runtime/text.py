"""Text to tokens and back, from the bundle's tokenizer files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from .errors import BundleError, PromptError

Message = Mapping[str, str]  # {"role": "user", "content": "…"}
Prompt = str | Iterable[int] | Iterable[Message]


class Text:
    """A tokenizer and, if the model has one, its chat template."""

    def __init__(self, directory: Path) -> None:
        file = directory / "tokenizer.json"
        try:
            self.tokenizer = Tokenizer.from_file(str(file))
        except Exception as e:
            raise BundleError(f"{file} cannot be read ({e}); upgrade tokenizers, or compile again") from e
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        config = directory / "tokenizer_config.json"
        self.config: dict[str, Any] = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
        template = directory / "chat_template.jinja"
        self.template = template.read_text(encoding="utf-8") if template.exists() else self.config.get("chat_template")

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a string, of a conversation through the chat template, or as given."""
        if isinstance(prompt, str):
            return list(self.tokenizer.encode(prompt).ids)
        items: list[Any] = list(prompt)
        if items and all(isinstance(i, Mapping) for i in items):
            return list(self.tokenizer.encode(self.render(items), add_special_tokens=False).ids)
        size = self.tokenizer.get_vocab_size()
        for i in items:
            if not isinstance(i, int) or i < 0:
                raise PromptError(f"{i!r} is no token id; pass text, token ids in 0..{size - 1}, or messages")
        return items

    def render(self, messages: list[Message]) -> str:
        """The text of a conversation, ready for the model's answer. Raises PromptError without a template."""
        if not self.template:
            raise PromptError("this model has no chat template; pass the prompt as text")
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise PromptError(f"the chat template refuses these messages: {message}")

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = refuse
        special = {
            k: v["content"] if isinstance(v, dict) else v for k, v in self.config.items() if k.endswith("_token")
        }
        try:
            template = environment.from_string(self.template)
            return template.render(messages=messages, add_generation_prompt=True, **special)
        except TemplateError as e:
            raise PromptError(f"the chat template fails on these messages: {e}") from e

    def decode(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens))

    def pieces(self, tokens: Iterable[int]) -> Iterator[tuple[int, str]]:
        """Each token with the text that it completes: "" while a character is still partial."""
        stream = DecodeStream(skip_special_tokens=True)
        for token in tokens:
            yield token, stream.step(self.tokenizer, token) or ""
