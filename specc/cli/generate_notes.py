"""The lines that `specc generate` writes to standard error: the sampling in use, and a summary of the request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from specc.runtime.sampling_defaults import PROCESSORS, SAMPLING, SamplingDefaults

if TYPE_CHECKING:
    from specc.runtime.manifest import ModelSpec
    from specc.runtime.request import RequestOptions
    from specc.runtime.stream import Stream

SHOWN = 60  # Characters of a value that a model's file holds.


def sampling_notes(model: ModelSpec, options: RequestOptions) -> list[str]:
    """Say which of the model's defaults for the choice of tokens are in use, and which specc does not apply.

    Args:
        model: the model, with what its `generation_config.json` asks for.
        options: the options that the user passes.
    """
    defaults, notes = SamplingDefaults(model.generation_config), []
    used = defaults.in_use(options)
    remedy = "; --temperature 0 is greedy" if "temperature" in used else ""
    if used:
        notes.append(f"tokens are chosen as generation_config.json asks: {_values(used)}{remedy}")
    if defaults.not_applied:
        notes.append(f"generation_config.json also asks for {_values(defaults.not_applied)}; specc does not apply it")
    return notes


def _values(options: Mapping[str, Any]) -> str:
    """Write options with their values in one line, the names of specc's own as on the command line."""
    names = {name: name.replace("_", "-") for name in (*SAMPLING, *PROCESSORS)}
    return ", ".join(f"{names.get(name, name)} {str(value)[:SHOWN]}" for name, value in options.items())


def summary(stream: Stream, max_new_tokens: int, context: int) -> list[str]:
    """Describe a finished request in two lines: its tokens and times, then how it was decoded and why it ended.

    Args:
        stream: the request.
        max_new_tokens: the limit that the user gave.
        context: the tokens that the model's context takes.
    """
    stats = stream.stats
    counts = f"{count(stats.prompt_tokens, 'prompt token')}, first token after {stats.prefill_seconds:.2f} s; "
    counts += count(stats.new_tokens, "new token")
    if stats.tokens_per_second:
        counts += f", {stats.tokens_per_second:.1f} tokens/s"
    kind = "" if stats.lossless else " (lossy: the answer may differ from plain decoding)"
    decoding = f"recipe {stats.recipe}{kind}, mean acceptance length {stats.mean_acceptance_length:.2f}"
    return [counts, f"{decoding}; {_ending(stream, max_new_tokens, context)}"]


def _ending(stream: Stream, max_new_tokens: int, context: int) -> str:
    """Say why an answer ended."""
    if stream.finish_reason == "stop":
        return f"finish reason stop: the stop string {stream.stop_reason!r}"
    if stream.finish_reason != "length":
        return f"finish reason {stream.finish_reason}: the model ended its answer"
    if stream.max_new_tokens < max_new_tokens:
        return f"finish reason length: the context of {context} tokens is full; --max-new-tokens was {max_new_tokens}"
    return f"finish reason length: --max-new-tokens {max_new_tokens}"


def empty_note(text: str, finish_reason: str, chat: bool, has_template: bool) -> str:
    """Say that an answer has no text, with what may help; nothing if it has text.

    Args:
        text: the whole answer.
        finish_reason: why it ended.
        chat: whether the prompt went through the chat template.
        has_template: whether the bundle has a chat template.
    """
    if text.strip():
        return ""
    if chat:
        remedy = "; --raw gives the prompt without the chat template"
    elif has_template:
        remedy = "; --chat gives the prompt as a user's message"
    else:
        remedy = "; --ignore-eos goes on after the end" if finish_reason == "eos" else ""
    return f"the answer is {'only white space' if text else 'empty'}{remedy}"


def count(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural where needed."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
