"""Where the prompt of `specc generate` comes from, and whether it goes through the chat template."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specc.bounded_read import read_text
from specc.messages import Conversation, parse_conversation
from specc.runtime.errors import PromptError, check_unicode

if TYPE_CHECKING:
    from specc.runtime.request import RequestOptions
    from specc.runtime.text import Prompt, Text

SOURCES = "--prompt TEXT, --prompt-file FILE, --messages FILE, or - for standard input"


@dataclass(frozen=True, kw_only=True)
class ChatChoice:
    """What the user says of the chat template.

    Attributes:
        chat: True for `--chat`, False for `--raw`, None for neither.
        system: the text of `--system`, or None.
    """

    chat: bool | None
    system: str | None

    def __post_init__(self) -> None:
        if self.system is None:
            return
        check_unicode(self.system, "--system")
        if self.chat is False:
            raise PromptError("--system is for the chat template and --raw does without it; give one of them")


@dataclass(frozen=True, kw_only=True)
class PromptForm:
    """A prompt as a session takes it.

    Attributes:
        prompt: text or messages.
        options: what the chat template gets beside the messages.
        note: a line for the user, if the form of the prompt may surprise; empty if there is none.
    """

    prompt: Prompt
    options: RequestOptions
    note: str = ""

    @property
    def chat(self) -> bool:
        """Whether the prompt goes through the chat template."""
        return not isinstance(self.prompt, str)


def read_source(source: str | None, prompt: str | None, file: Path | None, messages: Path | None) -> str | Conversation:
    """Read the prompt from the one source that the user names.

    Args:
        source: `-` for standard input, or None.
        prompt: the prompt itself, or None.
        file: a file that holds it, or None.
        messages: a file of messages, `-` for standard input, or None.

    Raises:
        PromptError: there is no source or more than one, or it does not hold UTF-8 text, or no messages.
    """
    if source not in (None, "-"):
        raise PromptError(f"unexpected {source!r}; give the prompt as {SOURCES}")
    if [source, prompt, file, messages].count(None) != 3:
        raise PromptError(f"give one prompt: {SOURCES}")
    if prompt is not None:
        check_unicode(prompt, "the prompt")
        return prompt
    if messages is None:
        return _read_text(file)
    is_stdin = str(messages) == "-"
    name = "standard input" if is_stdin else str(messages)
    return parse_conversation(_read_text(None if is_stdin else messages), name)


def _read_text(file: Path | None) -> str:
    """Read a file, or standard input if there is none, as UTF-8 with or without a byte order mark.

    Raises:
        PromptError: it is too long, or not UTF-8, or standard input is closed.
    """
    if file is None and sys.stdin is None:
        raise PromptError("standard input is closed; give the prompt by --prompt or --prompt-file")
    name = file or "standard input"
    try:
        with nullcontext(sys.stdin.buffer) if file is None else file.open("rb") as opened:
            return read_text(opened, name)
    except UnicodeDecodeError as e:
        raise PromptError(f"{name} is not UTF-8 text ({e}); convert it to UTF-8") from e


def take_form(source: str | Conversation, text: Text, choice: ChatChoice) -> PromptForm:
    """Decide whether a prompt goes through the chat template, and build what the session takes.

    Text is a user's message if the bundle has a template. Text that holds a special token of the model has been
    rendered by a template already, so it is taken as it is unless the user says otherwise.

    Args:
        source: the prompt as read.
        text: the tokenizer of the bundle.
        choice: what the user says of the template.

    Raises:
        PromptError: messages are to go without a template, or through one that the bundle lacks.
    """
    if isinstance(source, Conversation):
        if choice.chat is False:
            raise PromptError("messages need the chat template, and --raw does without it; leave out --raw")
        if not text.has_chat_template:
            raise PromptError("messages need a chat template, and this model has none; give a prompt of text instead")
        return _chat_form(source, choice.system)
    if choice.chat is False:
        return PromptForm(prompt=source, options={})
    wants_chat = choice.chat or choice.system is not None
    if not wants_chat and not text.has_chat_template:
        return PromptForm(prompt=source, options={})
    special = None if wants_chat else next((t for t in text.decoder.special.values() if t and t in source), None)
    if special is not None:
        note = f"the prompt has the special token {special}, so it is taken as it is; --chat makes it a user's message"
        return PromptForm(prompt=source, options={}, note=note)
    if not source:
        raise PromptError("the prompt is empty; give some text, or --raw for an answer to nothing")
    if not text.has_chat_template:
        wishes = {"--chat": choice.chat, "--system": choice.system is not None}
        names = " and ".join(name for name, wish in wishes.items() if wish)
        raise PromptError(f"this model has no chat template; leave out {names}")
    return _chat_form(Conversation(messages=[{"role": "user", "content": source}]), choice.system)


def _chat_form(conversation: Conversation, system: str | None) -> PromptForm:
    """Build a prompt of messages.

    Raises:
        PromptError: there are two system messages.
    """
    if system is not None:
        conversation = conversation.with_system(system)
    options: RequestOptions = {
        "tools": conversation.tools,
        "documents": conversation.documents,
        "chat_template_kwargs": conversation.chat_template_kwargs,
    }
    return PromptForm(prompt=conversation.messages, options=options)
