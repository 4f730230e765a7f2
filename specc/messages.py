"""Read conversations from JSON: messages for a chat template, with tools and documents."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from specc.runtime.errors import PromptError, check_unicode

FIELDS = ("messages", "tools", "documents", "chat_template_kwargs")
FORM = '[{"role": "user", "content": "…"}], or an object with messages, tools, documents or chat_template_kwargs'
SYSTEM = ("system", "developer")  # The roles of a message that sets the scene.
SHOWN = 60  # Characters of a wrong value in an error message.


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A conversation that a model answers.

    Attributes:
        messages: dicts with `role` and `content`.
        tools: JSON schemas of functions that the model may call; None leaves tools out.
        documents: dicts with `title` and `text`; None leaves them out.
        chat_template_kwargs: further variables of the chat template; None is none.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    documents: list[dict[str, Any]] | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    def with_system(self, text: str) -> Conversation:
        """Return the conversation with a system message in front.

        Raises:
            PromptError: it has one already.
        """
        if self.messages[0]["role"] in SYSTEM:
            raise PromptError("messages[0] is a system message already; leave out --system, or that message")
        return replace(self, messages=[{"role": "system", "content": text}, *self.messages])


def parse_conversation(text: str, where: str) -> Conversation:
    """Parse a conversation that is written as JSON.

    Args:
        text: a list of messages, or an object whose fields are FIELDS.
        where: the name of the text, for error messages.

    Raises:
        PromptError: the text has another form. The message names the index of the message and the field.
    """
    try:
        data: Any = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError) as e:
        raise PromptError(f"{where}: this is not JSON ({e}); give {FORM}") from e
    if isinstance(data, dict):
        if unknown := sorted(data.keys() - set(FIELDS)):
            raise PromptError(f"{where}: unknown field {_shown(unknown[0])}; the fields are {', '.join(FIELDS)}")
        return conversation_of(data, where)
    return conversation_of({"messages": data}, where)


def conversation_of(data: Mapping[str, Any], where: str) -> Conversation:
    """Check the fields of a conversation.

    Args:
        data: an object that has `messages`, and perhaps others of FIELDS. Other fields are ignored.
        where: the name of the object, for error messages.

    Raises:
        PromptError: a field is missing or has another form.
    """
    messages = data.get("messages")
    if not isinstance(messages, list) or not messages:
        raise PromptError(f"{where}: messages is {_shown(messages)}; give {FORM}")
    for number, message in enumerate(messages):
        _check_message(message, f"{where}: messages[{number}]")
    kwargs = data.get("chat_template_kwargs")
    if kwargs is not None and not isinstance(kwargs, dict):
        raise PromptError(f"{where}: chat_template_kwargs is {_shown(kwargs)}; give an object")
    return Conversation(
        messages=messages,
        tools=_objects(data.get("tools"), f"{where}: tools"),
        documents=_objects(data.get("documents"), f"{where}: documents"),
        chat_template_kwargs=kwargs,
    )


def _check_message(message: Any, where: str) -> None:
    """Check one message: its role, and that its content is text, parts, or nothing beside other fields.

    Raises:
        PromptError: it has another form.
    """
    if not isinstance(message, dict):
        raise PromptError(f'{where} is {_shown(message)}; give {{"role": "user", "content": "…"}}')
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        raise PromptError(f'{where}.role is {_shown(role)}; give "system", "user" or "assistant"')
    if content is None and set(message) <= {"role", "content"}:
        raise PromptError(f"{where}.content is missing; give text or a list of parts")
    if content is not None and not isinstance(content, (str, list)):
        raise PromptError(f"{where}.content is {_shown(content)}; give text or a list of parts")
    for name, value in message.items():
        if isinstance(value, str):
            check_unicode(value, f"{where}.{name}")


def _objects(items: Any, where: str) -> list[dict[str, Any]] | None:
    """Return a list of objects, or None.

    Raises:
        PromptError: it is something else. The message names the index.
    """
    if items is None:
        return None
    if not isinstance(items, list):
        raise PromptError(f"{where} is {_shown(items)}; give a list of objects")
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise PromptError(f"{where}[{number}] is {_shown(item)}; give an object")
    return items


def _shown(value: Any) -> str:
    """Return a value as the part of an error message: as JSON, and not too long."""
    if value is None:
        return "missing"
    text = json.dumps(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
