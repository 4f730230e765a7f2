"""Keep the text of a training within the model's positions: it was not trained beyond them, and some have no more."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from transformers import PreTrainedModel

from specc.huggingface import read_text_config
from specc.runtime.errors import CaptureError, HeadError

if TYPE_CHECKING:
    from specc.training.job import Options
    from specc.training.record import RecordingOptions

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
    positions = _configured(options.model) if model is None else positions_of(model)
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
        text,
        prompt_tokens=min(text.prompt_tokens, room),
        conversation_tokens=min(text.conversation_tokens, room),
        positions=min(text.positions or positions, positions),
    )
    return replace(options, recording=shorter)


def kept_places(length: int, prompt: int, text: RecordingOptions) -> list[int]:
    """Return the places of those tokens of a text that fit the positions.

    They are all, or the prompt without its middle, so that an answer fits behind it, and the beginning of the answer.

    Args:
        length: tokens of the text.
        prompt: those of the prompt.
        text: the positions, and the tokens of an answer.
    """
    places = list(range(length))
    if text.positions is None:
        return places
    room = text.positions - text.answer_tokens
    if prompt > room:
        del places[room // 2 : prompt - (room - room // 2)]
    return places[: text.positions]


def positions_of(model: PreTrainedModel) -> int | None:
    """Return a model's positions; None if it does not say."""
    return _stated(model.config.get_text_config())


def _configured(source: str) -> int | None:
    """Return the positions of a model that is not loaded; None if they cannot be read."""
    try:
        return _stated(read_text_config(source))
    except CaptureError:  # Loading the model says why.
        return None


def _stated(config: Any) -> int | None:
    positions: int | None = getattr(config, "max_position_embeddings", None)
    return positions or None
