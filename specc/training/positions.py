"""Keep the text of a training within the model's positions: it was not trained beyond them, and some have no more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from specc.huggingface import read_text_config
from specc.runtime.errors import CaptureError, HeadError

if TYPE_CHECKING:
    from specc.training.job import Options

LEAST_PROMPT = 32  # tokens that are left for a prompt


def within_positions(options: Options, model: PreTrainedModel | None = None, name: str = "") -> Options:
    """Return options by which a prompt, or a conversation, fits the model's positions together with its answer.

    Args:
        options: of the training.
        model: the model. None reads its configuration alone; where that cannot be read, the options stay.
        name: of the model, for messages; empty for the one that is trained for.

    Raises:
        HeadError: the answers leave no room for prompts.
    """
    positions = _positions_of(options.model, model)
    if positions is None:
        return options
    text = options.recording
    room = positions - text.answer_tokens
    if room < LEAST_PROMPT:
        raise HeadError(
            f"--answer-tokens {text.answer_tokens} does not fit the {positions} positions of {name or options.model} "
            f"beside a prompt; give {positions - LEAST_PROMPT} or fewer"
        )
    shorter = replace(
        text, prompt_tokens=min(text.prompt_tokens, room), conversation_tokens=min(text.conversation_tokens, room)
    )
    return replace(options, recording=shorter)


def _positions_of(source: str, model: PreTrainedModel | None) -> int | None:
    """Return a model's positions; None if it does not say."""
    try:
        config: Any = read_text_config(source) if model is None else model.config.get_text_config()
    except CaptureError:  # Loading the model says why.
        return None
    positions: int | None = getattr(config, "max_position_embeddings", None)
    return positions or None
