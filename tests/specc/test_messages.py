"""Conversations from JSON: their forms, and errors that name the index and the field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from specc.messages import Conversation, parse_conversation
from specc.runtime.errors import PromptError

USER = {"role": "user", "content": "hi"}


def test_a_list_of_messages_or_an_object_with_more() -> None:
    assert parse_conversation(json.dumps([USER]), "f") == Conversation(messages=[USER])
    data: dict[str, Any] = {
        "messages": [USER],
        "tools": [{"name": "f"}],
        "documents": [],
        "chat_template_kwargs": {"think": False},
    }
    assert parse_conversation("\ufeff" + json.dumps(data), "f") == Conversation(**data)


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]},
        {"role": "assistant", "tool_calls": []},
        {"role": "tool", "content": "4", "tool_call_id": "1"},
    ],
)
def test_parts_calls_and_their_results_are_messages(message: dict[str, Any]) -> None:
    assert parse_conversation(json.dumps([USER, message]), "f").messages == [USER, message]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("[", "f: this is not JSON ("),
        ("[" * 100_000, "f: this is not JSON ("),
        ("5", "f: messages is 5; give [{"),
        ("[]", "f: messages is []; give [{"),
        ("{}", "f: messages is missing; give [{"),
        ('{"messages": "hi"}', 'f: messages is "hi"; give [{'),
        ('{"message": []}', 'f: unknown field "message"; the fields are messages, tools, documents'),
        ('["hi"]', 'f: messages[0] is "hi"; give {"role": "user", "content": "…"}'),
        ([USER, {"content": "a"}], "f: messages[1].role is missing; give"),
        ([USER, {"role": 5, "content": "a"}], "f: messages[1].role is 5; give"),
        ([USER, {"role": "user"}], "f: messages[1].content is missing; give text or a list of parts"),
        ([{"role": "user", "content": 5}], "f: messages[0].content is 5; give text or a list of parts"),
        ([{"role": "user", "content": {"a": "b" * 90}}], 'f: messages[0].content is {"a": "bbb'),
        ('[{"role": "user", "content": "a\\udcff"}]', "f: messages[0].content has the lone surrogate U+DCFF"),
        ({"messages": [USER], "tools": {}}, "f: tools is {}; give a list of objects"),
        ({"messages": [USER], "tools": [{}, "g"]}, 'f: tools[1] is "g"; give an object'),
        ({"messages": [USER], "documents": [5]}, "f: documents[0] is 5; give an object"),
        ({"messages": [USER], "chat_template_kwargs": []}, "f: chat_template_kwargs is []; give an object"),
    ],
)
def test_an_error_names_the_index_and_the_field(data: Any, message: str) -> None:
    with pytest.raises(PromptError) as e:
        parse_conversation(data if isinstance(data, str) else json.dumps(data), "f")
    assert str(e.value).startswith(message)
    assert "\n" not in str(e.value) and len(str(e.value)) < 250


def test_a_system_message_goes_in_front_of_others_but_not_of_another() -> None:
    conversation = Conversation(messages=[USER], tools=[{"name": "f"}]).with_system("be brief")
    assert conversation.messages == [{"role": "system", "content": "be brief"}, USER]
    assert conversation.tools == [{"name": "f"}]
    with pytest.raises(PromptError, match=r"messages\[0\] is a system message already; leave out --system"):
        conversation.with_system("be long")
