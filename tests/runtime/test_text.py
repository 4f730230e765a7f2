"""Prompts to tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toys import tokenizer

from specc.runtime.errors import BundleError, PromptError
from specc.runtime.text import Text

TEMPLATE = (
    "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if messages[0].role != 'user' %}{{ raise_exception('begin with the user') }}{% endif %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
HELLO = [{"role": "user", "content": "hello"}]


def text(directory: Path, **config: Any) -> Text:
    tokenizer().save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return Text(directory)


def test_text_tokens_and_messages_are_prompts(tmp_path: Path) -> None:
    loaded = text(tmp_path, chat_template=TEMPLATE, bos_token={"content": "<b>"})
    assert loaded.decode(loaded.encode("the 日")) == "the 日"
    assert loaded.encode(iter([5, 0])) == [5, 0]
    assert loaded.decode(loaded.encode(HELLO)) == "<b>user: hello\nassistant:"


def test_a_template_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    loaded = text(tmp_path)
    assert loaded.render(HELLO) == "hello!"


@pytest.mark.parametrize("prompt", [[1, -1], [1, "a"], [1, 2.0], [HELLO[0], 1], [None]])
def test_an_item_that_is_not_a_token_id_is_named(tmp_path: Path, prompt: Any) -> None:
    with pytest.raises(PromptError, match="is not a token id; pass text"):
        text(tmp_path).encode(prompt)


@pytest.mark.parametrize(
    ("template", "role", "named"),
    [
        (None, "user", "no chat template"),
        (TEMPLATE, "system", "begin with the user"),
        ("{% for %}", "user", "the chat template fails"),
        ("{{ messages.__class__.__mro__ }}", "user", "the chat template fails"),
    ],
)
def test_a_conversation_that_cannot_be_rendered_says_why(
    tmp_path: Path, template: str | None, role: str, named: str
) -> None:
    loaded = text(tmp_path, **({"chat_template": template} if template else {}))
    with pytest.raises(PromptError, match=named):
        loaded.encode([{"role": role, "content": "hello"}])


def test_a_file_that_is_not_a_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json"):
        Text(tmp_path)
