"""Prompts to train on: those of the user's files, or those that ship with specc, as tokens."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specc.huggingface import quiet
from specc.messages import Conversation
from specc.prompts import FORMS
from specc.runtime.errors import PromptError, first_line
from specc.training.prompt_files import read_file

SHIPPED = Path(__file__).with_name("prompts.json")
MARK = "specc-marks-a-message"  # stands where a message goes in the chat template
ROWS = "rows"  # a placeholder of a template; each of its values fills several placeholders at once


@dataclass(frozen=True)
class Prompt:
    """A prompt to train on.

    Attributes:
        tokens: what the model answers first.
        later: the tokens that come behind each answer: its end, the user's next turn, the start of the next answer.
    """

    tokens: tuple[int, ...]
    later: tuple[tuple[int, ...], ...] = ()


def shipped_prompts(count: int, seed: int) -> list[str]:
    """Compose prompts from the templates that ship with specc.

    Args:
        count: the number of prompts. All are different.
        seed: decides which are taken. The groups of templates take turns.
    """
    rng = random.Random(seed)
    groups = json.loads(SHIPPED.read_text(encoding="utf-8"))["groups"]
    streams = [_compose(group, rng) for group in groups]
    turns: list[Iterator[str]] = list(streams)
    prompts: dict[str, None] = {}
    while turns and len(prompts) < count:
        for stream in list(turns):
            text = next(stream, None)
            if text is None:
                turns.remove(stream)
            elif len(prompts) < count:
                prompts.setdefault(text)
    return list(prompts)


def _compose(group: Mapping[str, Any], rng: random.Random) -> Iterator[str]:
    """Yield every template of a group with every value of its slots, in random order."""
    slots: Mapping[str, Sequence[Any]] = group["slots"]
    sizes = {template: _slots_of(template, slots) for template in group["templates"]}
    counts = [math.prod(len(slots[name]) for name in names) for names in sizes.values()]
    order = rng.sample(range(sum(counts)), sum(counts))
    starts = list(itertools.accumulate(counts, initial=0))
    templates = list(sizes.items())
    for number in order:
        index = next(i for i, start in enumerate(starts[1:]) if number < start)
        template, names = templates[index]
        yield _fill(template, names, group, number - starts[index])


def _slots_of(template: str, slots: Mapping[str, Sequence[Any]]) -> list[str]:
    return [name for name in slots if name == ROWS or f"{{{name}}}" in template]


def _fill(template: str, names: Sequence[str], group: Mapping[str, Any], number: int) -> str:
    """Fill the slots of a template with the values that a number stands for."""
    for name in names:
        values = group["slots"][name]
        number, index = divmod(number, len(values))
        row = dict(zip(group[ROWS], values[index], strict=True)) if name == ROWS else {name: values[index]}
        for slot, value in row.items():
            template = template.replace(f"{{{slot}}}", value)
    return template


def read_prompts(files: Sequence[Path], tokenizer: Any, *, count: int, longest: int, seed: int) -> list[Prompt]:
    """Return the prompts to train on, as tokens, in random order.

    Args:
        files: JSON lines with `prompt`, `turns` or `messages`; or text, which is cut into pieces that the model
            continues. Without files, prompts that ship with specc are taken.
        tokenizer: of transformers. If it has a chat template, prompts become the user's first message.
        count: the largest number of prompts.
        longest: the largest number of tokens of a prompt, or of a later turn. The middle of a longer one is left out.
        seed: of the order.

    Raises:
        PromptError: a file cannot be read, a line has another form, or nothing is left.
    """
    if files:
        prompts = [prompt for file in files for prompt in _of_file(file, tokenizer, longest)]
    else:
        prompts = [Prompt(tokens_of(text, tokenizer, str(SHIPPED))) for text in shipped_prompts(count, seed)]
    different = list(dict.fromkeys(_shorten(prompt, longest) for prompt in prompts if prompt.tokens))
    if len(different) < 2:
        raise PromptError(f"{', '.join(map(str, files))}: there are fewer than two different prompts; give more")
    random.Random(seed).shuffle(different)
    return different[:count]


def text_prompts(texts: Sequence[str], tokenizer: Any, *, longest: int, seed: int) -> list[Prompt]:
    """Make prompts of texts, in random order. The other arguments are those of `read_prompts`."""
    prompts = [_shorten(Prompt(tokens_of(text, tokenizer, "a prompt")), longest) for text in texts]
    random.Random(seed).shuffle(prompts)
    return prompts


def _shorten(prompt: Prompt, longest: int) -> Prompt:
    """Leave out the middle of what is too long."""
    head = longest // 2

    def cut(tokens: tuple[int, ...]) -> tuple[int, ...]:
        return tokens if len(tokens) <= longest else tokens[:head] + tokens[len(tokens) - (longest - head) :]

    return Prompt(cut(prompt.tokens), tuple(cut(turn) for turn in prompt.later))


def _of_file(file: Path, tokenizer: Any, longest: int) -> list[Prompt]:
    """Return the prompts of one file."""
    source = read_file(file)
    if isinstance(source, str):
        tokens = encode(source, tokenizer, add_special_tokens=False)
        pieces = [tokens[start : start + longest] for start in range(0, len(tokens), longest)]
        return [Prompt(tuple(piece)) for piece in pieces if len(piece) > 1]
    prompts = []
    for line in source:
        where = f"{file}, line {line.number}"
        later = tuple(_later(turn, tokenizer, where) for turn in line.later)
        prompts.append(Prompt(tokens_of(line.source, tokenizer, where), later))
    return prompts


def encode(text: str, tokenizer: Any, **options: Any) -> list[int]:
    """Return the tokens of a text."""
    with quiet():  # transformers warns of a text that is longer than the model's context
        tokens: list[int] = tokenizer(text, **options)["input_ids"]
    return tokens


def _later(turn: str, tokenizer: Any, where: str) -> tuple[int, ...]:
    """Turn a later turn into the tokens that come behind the model's answer."""
    text = f"\n{turn}\n"
    if getattr(tokenizer, "chat_template", None):
        messages = [("user", MARK), ("assistant", MARK), ("user", turn)]
        whole = _apply([{"role": role, "content": content} for role, content in messages], tokenizer, where)
        text = whole.rpartition(MARK)[2]
    return tuple(encode(text, tokenizer, add_special_tokens=False))


def tokens_of(source: str | Conversation, tokenizer: Any, where: str) -> tuple[int, ...]:
    """Turn one prompt into tokens, through the chat template if there is one."""
    if isinstance(source, str) and not getattr(tokenizer, "chat_template", None):
        return tuple(encode(source, tokenizer))
    if not getattr(tokenizer, "chat_template", None):
        raise PromptError(f"{where}: the model has no chat template for messages; give {FORMS}")
    messages: Any = [{"role": "user", "content": source}] if isinstance(source, str) else source.messages
    options: dict[str, Any] = {}
    if isinstance(source, Conversation):
        options = {"tools": source.tools, "documents": source.documents, **(source.chat_template_kwargs or {})}
    text = _apply(messages, tokenizer, where, **options)
    return tuple(encode(text, tokenizer, add_special_tokens=False))


def _apply(messages: Any, tokenizer: Any, where: str, **options: Any) -> str:
    """Apply the chat template."""
    try:
        text: str = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, **options)
        return text
    except Exception as e:  # templates raise errors of jinja2, of transformers and of Python
        raise PromptError(f"{where}: the chat template refuses it: {first_line(e)}") from e
