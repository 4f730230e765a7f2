"""Conversations to text, by a model's chat template, exactly as transformers renders them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import PromptError, first_line

Message = Mapping[str, Any]  # {"role": "user", "content": "…"}; the content may be a list of parts.

TEMPLATE, FOLDER = "chat_template.jinja", "additional_chat_templates"  # As transformers saves them.
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
REASONING = ("reasoning_content", "thinking", "reasoning")  # The names of one field. Templates read the first.
SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
)
TAG = "CONTINUE_FINAL_MESSAGE_TAG "
DEPTH = 100  # Of lists and dicts in a message.
MESSAGE = 300  # Characters of an error message that a template writes.


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """The options of one rendering: what a chat template receives besides the messages.

    Attributes:
        tools: JSON schemas of functions that the model may call; None leaves tools out.
        documents: dicts with `title` and `text`, for templates that ground an answer; None leaves them out.
        add_generation_prompt: end with the header of the model's answer; None does so unless a message is continued.
        continue_final_message: leave the last message open, so that the model continues it. A string names the field
            of the message that is continued; True is `content`.
        template: the name of a template, for a model that has several; None chooses as transformers does.
        template_kwargs: further variables of the template, such as `enable_thinking`.
    """

    tools: Collection[Mapping[str, Any]] | None = None
    documents: Collection[Mapping[str, Any]] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | str = False
    template: str | None = None
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)


def read_templates(files: Mapping[str, Path], config: Mapping[str, Any]) -> dict[str, str]:
    """Read a model's chat templates by name. One alone has the name `default`.

    Args:
        files: the files that may be read, by their names in the directory of the tokenizer. Others are left out.
        config: the contents of `tokenizer_config.json`, which holds the templates of older checkpoints.
    """
    templates: dict[str, str] = {}
    stored = config.get("chat_template")
    if isinstance(stored, str):
        templates["default"] = stored
    elif isinstance(stored, Mapping):
        templates.update({str(name): str(text) for name, text in stored.items()})
    elif isinstance(stored, list):
        pairs = [item for item in stored if isinstance(item, Mapping) and {"name", "template"} <= item.keys()]
        templates.update({str(item["name"]): str(item["template"]) for item in pairs})
    paths = [PurePosixPath(name) for name in sorted(files)]
    named = {p.stem: files[str(p)] for p in paths if p.parent == PurePosixPath(FOLDER) and p.suffix == ".jinja"}
    if TEMPLATE in files:
        named["default"] = files[TEMPLATE]
    if named:
        templates = {name: file.read_text(encoding="utf-8") for name, file in named.items()}
    return templates


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that a template can name, from the contents of `tokenizer_config.json`."""
    named = {key: value for key, value in config.items() if key.endswith("_token")}
    for group in ("model_specific_special_tokens", "extra_special_tokens"):
        tokens = config.get(group)
        if isinstance(tokens, Mapping):
            named.update(tokens)
    texts = {key: value.get("content") if isinstance(value, Mapping) else value for key, value in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


class ChatTemplate:
    """The chat templates of a model, and the special tokens that they name."""

    def __init__(self, templates: Mapping[str, str], tokens: Mapping[str, str]) -> None:
        self.templates, self.tokens = templates, tokens

    def render(self, messages: Sequence[Message], options: ChatOptions) -> str:
        """Write a conversation as text.

        A template that takes only text as content gets the text parts of a list joined by line breaks.

        Raises:
            PromptError: there is no template, it fails on or refuses these messages, it takes too long or too much
                memory, or the options do not go together.
        """
        source = self._select(options)
        open_end = options.continue_final_message
        header = options.add_generation_prompt
        if open_end and header:
            raise PromptError("continue_final_message and add_generation_prompt are both given; give one of them")
        if not isinstance(options.template_kwargs, Mapping):
            raise PromptError(f"the template's variables are {_short(repr(options.template_kwargs))}; give a dict")
        chat = [_normalize(message) for message in messages]
        if not chat:
            raise PromptError("the conversation is empty; give one message or more")
        variables = {
            **self.tokens,
            **_plain(dict(options.template_kwargs)),
            "tools": _schemas(options.tools, "tools"),
            "documents": _schemas(options.documents, "documents"),
            "add_generation_prompt": not open_end if header is None else header,
        }
        final = _mark_final(chat[-1], open_end, source) if open_end else None
        text = _render_parts(source, chat, variables)
        return text if final is None else _cut_at_tag(text, final)

    def _select(self, options: ChatOptions) -> str:
        """Return the text of the template that the options name, or that their tools ask for.

        Raises:
            PromptError: there is no such template.
        """
        names = sorted(self.templates)
        if not names:
            raise PromptError("this model has no chat template; pass the prompt as text")
        if options.template is not None:
            if options.template not in self.templates:
                raise PromptError(f"there is no chat template {options.template!r}; there are {', '.join(names)}")
            return self.templates[options.template]
        if options.tools is not None and "tool_use" in self.templates:
            return self.templates["tool_use"]
        if "default" not in self.templates:
            raise PromptError(f"this model has no default chat template; name one of {', '.join(names)}")
        return self.templates["default"]


def _normalize(message: Any) -> dict[str, Any]:
    """Return a message of plain values, without the fields that are None, its reasoning under all names.

    Raises:
        PromptError: it is not a dict, nor an object that can be made one.
    """
    plain = _plain(message)
    if not isinstance(plain, dict):
        raise PromptError(f"a message is {_short(repr(message))}; give a dict with role and content")
    plain = {key: value for key, value in plain.items() if value is not None}
    reasoning = next((plain[name] for name in REASONING if name in plain), None)
    if reasoning is None:
        return plain
    return {"thinking": reasoning, **plain, "reasoning_content": reasoning}


def _plain(value: Any, depth: int = 0) -> Any:
    """Copy a value into plain JSON types, since a method of any other object would be open to the template.

    Raises:
        PromptError: lists and dicts are nested too deep.
    """
    if depth > DEPTH:
        raise PromptError(f"a message is nested more than {DEPTH} deep; flatten it")
    if value is None or isinstance(value, bool):
        return value
    for kind, copy in SCALARS:  # A subclass may have methods of its own.
        if isinstance(value, kind):
            return copy(value)
    if isinstance(value, Mapping):
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_plain(item, depth + 1) for item in value]
        return items if isinstance(value, list) else tuple(items)
    return _plain_object(value, depth)


def _plain_object(value: Any, depth: int) -> Any:
    """Copy an object that is not of a JSON type: a number of numpy, a dataclass, a pydantic model, or a placeholder."""
    if hasattr(value, "dtype") and getattr(value, "ndim", None) == 0:
        return _plain(value.item(), depth + 1)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name), depth + 1) for f in dataclasses.fields(value)}
    if callable(getattr(value, "model_dump", None)):
        return _plain(value.model_dump(), depth + 1)
    return f"<{type(value).__name__}>"


def _schemas(items: Any, name: str) -> Any:
    """Return plain copies of tools or documents, or None.

    Raises:
        PromptError: it is not a list of dicts.
    """
    if items is None:
        return None
    wrong = not isinstance(items, Iterable) or isinstance(items, (str, bytes, Mapping))
    if wrong or not all(isinstance(item, Mapping) for item in items):
        raise PromptError(f"{name} is {_short(repr(items))}; give a list of dicts (JSON schemas for tools)")
    return [_plain(item) for item in items]


def _mark_final(message: dict[str, Any], named: bool | str, source: str) -> str:
    """Put a tag at the end of the field that is continued, and return the field's text.

    Raises:
        PromptError: the message has no such text, or the template does not read the field.
    """
    name = named if isinstance(named, str) else "content"
    content = message.get(name)
    if content is None:
        raise PromptError(f"continue_final_message: the last message has no {name!r}; give one")
    names = [n for n in REASONING if message.get(n) == content] if name in REASONING else [name]
    if not any(n in source for n in names):
        raise PromptError(f"continue_final_message: the chat template does not read {name!r}")
    if isinstance(content, str):
        message.update(dict.fromkeys(names, content + TAG))
        return content
    parts = [part for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
    if not parts:
        raise PromptError("continue_final_message: the last message has no text to continue")
    text = str(parts[-1]["text"])
    parts[-1]["text"] = text + TAG
    return text


def _cut_at_tag(text: str, final: str) -> str:
    """Return a rendered conversation up to the end of its last message.

    Raises:
        PromptError: the template left the last message out.
    """
    if final.strip() not in text or TAG.strip() not in text:
        raise PromptError("continue_final_message: the chat template changes or leaves out the last message")
    end = text.rindex(TAG.strip())
    beginning = text[:end]
    return beginning if text.startswith(TAG, end) else beginning.rstrip()  # The template strips messages.


def _render_parts(source: str, chat: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
    """Render a conversation, and once more with text for lists of parts if the template does not take lists.

    Raises:
        PromptError: the template fails, or refuses the messages.
    """
    lists = [message["content"] for message in chat if isinstance(message.get("content"), list)]
    try:
        text = _render(source, chat, variables)
    except PromptError as e:
        if not lists or not isinstance(e.__cause__, TypeError):
            raise
    else:
        if not any(parts and str(parts) in text for parts in lists):
            return text
    return _render(source, [{**message, **_joined(message)} for message in chat], variables)


def _joined(message: Mapping[str, Any]) -> dict[str, str]:
    """Return the content of a message as one text, if it is a list of parts.

    Raises:
        PromptError: a part is not text.
    """
    parts = message.get("content")
    if not isinstance(parts, list):
        return {}
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    for text, part in zip(texts, parts, strict=True):
        if not isinstance(text, str):
            raise PromptError(f"this model's chat template takes text only; a part of a message is {_short(str(part))}")
    return {"content": "\n".join(map(str, texts))}


def _render(source: str, chat: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
    """Render a conversation.

    Raises:
        PromptError: the template fails, or refuses the messages.
    """
    from jinja2.exceptions import TemplateError

    from . import chat_meter, chat_sandbox  # Few sessions need Jinja, and its import takes time.

    try:
        return chat_sandbox.render(source, {**variables, "messages": chat}, chat_meter.Limits())
    except chat_sandbox.RefusalError as e:
        raise PromptError(f"the chat template refuses these messages: {_short(str(e))}") from e
    except chat_meter.TooMuchError as e:
        raise PromptError(f"the chat template was stopped: {e}; pass the prompt as text") from e
    except TemplateError as e:
        raise PromptError(f"the chat template fails on these messages: {_short(first_line(e))}") from e
    except Exception as e:  # A template is foreign code, and may cause any error.
        line = _short(f"{type(e).__name__}: {first_line(e)}")
        raise PromptError(f"the chat template fails on these messages: {line}") from e


def _short(text: str) -> str:
    """Return a foreign text as the part of one line: no control characters, and not too long."""
    line = re.sub(r"\s+", " ", text).strip()
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return line if len(line) <= MESSAGE else line[:MESSAGE] + "…"
