"""The options of a request, by name and type."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypedDict

from .acceptance import Acceptance
from .errors import PromptError, nearest


class RequestOptions(TypedDict, total=False):
    """The keyword options of `Session.stream`, which describes them. None, or a missing key, is the default."""

    recipe: str | None
    acceptance: str | Acceptance | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    logit_bias: Mapping[int, float] | None
    bad_words: str | Collection[str | Sequence[int]] | None
    min_new_tokens: int | None
    logprobs: int | None
    json_schema: str | Mapping[str, Any] | None
    regex: str | None
    lark: str | None
    stop: str | Collection[str] | None
    stop_token_ids: int | Collection[int] | None
    ignore_eos: bool
    guard: bool
    exact: bool | str
    tools: Collection[Mapping[str, Any]] | None
    documents: Collection[Mapping[str, Any]] | None
    add_generation_prompt: bool | None
    continue_final_message: bool | str
    chat_template_kwargs: Mapping[str, Any] | None


def check_names(method: str, options: Collection[str], *others: str) -> None:
    """Check the names of a request's options, before a method passes them on.

    Args:
        method: the method that a user called.
        options: the names.
        others: options that the method has besides `max_new_tokens` and those of `RequestOptions`.

    Raises:
        TypeError: there is no option of such a name.
    """
    for name in options:
        if name not in RequestOptions.__annotations__:
            names = ("max_new_tokens", *others, *RequestOptions.__annotations__)
            hint = nearest(name, names, "help(specc.Session.stream) describes them")
            raise TypeError(f"{method} has no option {name!r}; {hint}")


def check_flags(**flags: object) -> None:
    """Check options that are true or false.

    Raises:
        PromptError: one is something else, such as an array.
    """
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise PromptError(f"{name} is {type(value).__name__}; give True or False")
