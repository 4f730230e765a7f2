"""Conversations to text: what transformers writes, or one line that says why not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specc.runtime.chat import ChatOptions, ChatTemplate, read_templates, special_tokens
from specc.runtime.errors import PromptError

# In the manner of some twenty model families: what each of them asks of Jinja and of its environment.
FILES = sorted((Path(__file__).parents[1] / "chat_templates").glob("*.jinja"))
TEMPLATES = {file.stem: file.read_text(encoding="utf-8") for file in FILES}
ROLES = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "image_token": "<img>"}
USER = {"role": "user", "content": " Tom & Jerry's <b> é 😀 "}
SYSTEM = {"role": "system", "content": "Be kind."}
ANSWER = {"role": "assistant", "content": "<think>\nhm</think>\n\nSure:  "}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"b": 1, "a": "it's"}}}],
}
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "Find <it>",
        "parameters": {
            "type": "object",
            "properties": {"b": {"type": "array", "items": {"type": "string"}}, "a": {"type": "string"}},
        },
    },
}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "user": [USER],
    "system": [SYSTEM, USER],
    "turns": [USER, ANSWER, USER, ANSWER, USER],
    "assistant last": [USER, ANSWER],
    "two users": [USER, USER],
    "call": [USER, CALL, {"role": "tool", "content": "3"}],
    "reasoning": [USER, {"role": "assistant", "content": "yes", "reasoning": "because"}],
    "thinking": [USER, {"role": "assistant", "content": "yes", "thinking": "because"}],
    "empty": [{"role": "user", "content": ""}],
    "no role": [{"content": "x"}],
    "no content": [{"role": "user"}],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no header": {"add_generation_prompt": False},
    "tools": {"tools": [TOOL]},
    "no tools": {"tools": []},
    "documents": {"documents": [{"title": "A & B", "text": "t"}]},
    "continued": {"continue_final_message": True},
    "continued field": {"continue_final_message": "reasoning_content"},
    "arguments": {
        "template_kwargs": {
            "enable_thinking": False,
            "controls": {"length": "short"},
            "custom_tools": None,
            "bos_token": "B",
        }
    },
    "numbers": {"template_kwargs": {"enable_thinking": np.bool_(False), "controls": {"n": np.int64(3)}}},
}


def render(source: str, messages: Any, **options: Any) -> str:
    return ChatTemplate({"default": source}, TOKENS).render(messages, ChatOptions(**options))


def by_transformers(template: str, messages: Any, options: ChatOptions) -> str:
    """Render as `apply_chat_template` does."""
    from transformers import PreTrainedTokenizerFast

    fast: Any = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), chat_template=template, **TOKENS)
    header = not options.continue_final_message
    text = fast.apply_chat_template(
        messages,
        tools=options.tools,
        documents=options.documents,
        add_generation_prompt=header if options.add_generation_prompt is None else options.add_generation_prompt,
        continue_final_message=options.continue_final_message,
        tokenize=False,
        **options.template_kwargs,
    )
    assert isinstance(text, str)
    return text


def _tokenizer() -> Any:
    from toys import tokenizer

    return tokenizer()


@pytest.mark.torch
@pytest.mark.parametrize("family", TEMPLATES)
def test_a_conversation_reads_as_transformers_writes_it(family: str) -> None:
    """Where transformers fails, for whatever reason, the runtime says one line."""
    texts = 0
    for label, messages in CONVERSATIONS.items():
        for name, options in OPTIONS.items():
            try:
                expected = by_transformers(TEMPLATES[family], messages, ChatOptions(**options))
            except Exception:
                with pytest.raises(PromptError, match=r"^[^\n]+$"):
                    render(TEMPLATES[family], messages, **options)
            else:
                assert render(TEMPLATES[family], messages, **options) == expected, (label, name)
                texts += 1
    assert texts >= 9, "this template fails on nearly all conversations, and shows nothing"


@pytest.mark.torch
@pytest.mark.parametrize("family", ["gemma_3", "smollm_3"])
def test_parts_of_text_reach_a_template_that_takes_them(family: str) -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": " b"}]}]
    for options in (ChatOptions(), ChatOptions(continue_final_message=True)):
        try:
            expected = by_transformers(TEMPLATES[family], messages, options)
        except ValueError:
            continue  # One of them drops lists, and so has nothing to continue.
        assert ChatTemplate({"default": TEMPLATES[family]}, TOKENS).render(messages, options) == expected


@pytest.mark.parametrize(
    "template", ["{% for m in messages %}{{ m.content + '!' }}{% endfor %}", "{{ messages[0].content }}!"]
)
def test_parts_of_text_are_lines_for_a_template_that_takes_only_text(template: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert render(template, [{"role": "user", "content": parts}]) == "a\nb!"
    with pytest.raises(PromptError, match=r"takes text only; a part of a message is .*image"):
        render(template, [{"role": "user", "content": [*parts, {"type": "image", "url": "x"}]}])


def test_messages_may_be_objects() -> None:
    @dataclass
    class Turn:
        role: str
        content: str

    class Model:
        def model_dump(self) -> dict[str, str]:
            return {"role": "assistant", "content": "b"}

    assert render(ROLES, [Turn("user", "a"), Model()]) == "<|user|>a<|assistant|>b"


def test_a_template_sees_no_method_of_a_foreign_object(tmp_path: Path) -> None:
    assert render("{{ messages[0].file }}", [{"role": "user", "file": tmp_path}]) == f"<{type(tmp_path).__name__}>"
    with pytest.raises(PromptError, match="has no attribute 'unlink'"):
        render("{{ messages[0].file.unlink() }}", [{"role": "user", "file": tmp_path}])


def test_the_callers_messages_stay_as_they_are() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}], "name": None}]
    before = json.dumps(messages)
    render(TEMPLATES["gemma_3"], messages, continue_final_message=True)
    assert json.dumps(messages) == before


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"tools": [print]}, "tools is .*; give a list of dicts"),
        ({"tools": {"name": "f"}}, "tools is .*; give a list of dicts"),
        ({"tools": 5}, "tools is 5; give a list of dicts"),
        ({"template_kwargs": "x"}, "variables are 'x'; give a dict"),
        ({"documents": "text"}, "documents is 'text'; give a list of dicts"),
        ({"continue_final_message": True, "add_generation_prompt": True}, "are both given; give one of them"),
        ({"continue_final_message": "reasoning_content"}, "the last message has no 'reasoning_content'"),
        ({"template": "rag"}, "there is no chat template 'rag'; there are default"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(PromptError, match=line):
        render(ROLES, [USER], **options)


@pytest.mark.parametrize("messages", [[], [1], ["text"]])
def test_what_is_no_conversation_is_one_line(messages: Any) -> None:
    with pytest.raises(PromptError, match=r"give one message|give a dict with role and content"):
        render(ROLES, messages)


def test_a_template_that_drops_the_last_message_cannot_continue_it() -> None:
    with pytest.raises(PromptError, match="changes or leaves out the last message"):
        render("{% if false %}content{% endif %}x", [USER], continue_final_message=True)


def test_messages_nested_too_deep_are_one_line() -> None:
    deep: Any = "x"
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PromptError, match="nested more than 100 deep"):
        render(ROLES, [{"role": "user", "content": deep}])


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.torch
def test_named_templates_are_chosen_as_transformers_chooses(tmp_path: Path, listed: bool) -> None:
    """Of a checkpoint of today, with a file a template, and of an older one, with a list in a JSON file."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    named = {"default": "default {{ messages[0].content }}", "tool_use": "tools {{ tools|length }}", "rag": "rag"}
    fast = PreTrainedTokenizerFast(tokenizer_object=_tokenizer(), chat_template=named, **TOKENS)
    fast.save_pretrained(tmp_path, save_jinja_files=not listed)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert ("chat_template" in config) == listed
    files = {f.relative_to(tmp_path).as_posix(): f for f in tmp_path.rglob("*") if f.is_file()}
    chat = ChatTemplate(read_templates(files, config), special_tokens(config))
    reference: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert chat.templates == reference.chat_template == named
    assert chat.tokens == reference.special_tokens_map
    for tools in (None, [TOOL]):
        expected = reference.apply_chat_template([USER], tools=tools, tokenize=False, add_generation_prompt=True)
        assert chat.render([USER], ChatOptions(tools=tools)) == expected
    assert chat.render([USER], ChatOptions(template="rag")) == "rag"
    with pytest.raises(PromptError, match="no default chat template; name one of rag"):
        ChatTemplate({"rag": "rag"}, {}).render([USER], ChatOptions())


def test_only_texts_are_special_tokens() -> None:
    config = {
        "bos_token": {"content": "<s>"},
        "eos_token": None,
        "add_bos_token": True,
        "extra_special_tokens": ["<a>"],
    }
    assert special_tokens(config) == {"bos_token": "<s>"}
    assert special_tokens({"extra_special_tokens": {"image_token": "<i>"}}) == {"image_token": "<i>"}
