"""Text within a model's positions: prompts get shorter, and answers that leave no room for one are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from specc.huggingface import load_model
from specc.runtime.errors import HeadError
from specc.training.job import Options
from specc.training.positions import kept_places, within_positions
from specc.training.record import RecordingOptions
from specc.training.trainer import TrainerOptions

pytestmark = pytest.mark.torch


def options(model: Path, answer_tokens: int) -> Options:
    recording = RecordingOptions(taps=(), answer_tokens=answer_tokens)
    return Options(
        model=str(model),
        recipe="eagle3",
        output=model / "h",
        work=model / "w",
        recording=recording,
        trainer=TrainerOptions(),
    )


@pytest.mark.parametrize("is_loaded", [False, True])
def test_prompts_and_conversations_have_the_room_that_answers_leave(is_loaded: bool, model: Path) -> None:
    here = load_model(str(model)) if is_loaded else None
    text = within_positions(options(model, 100), here).recording  # of 256 positions
    assert (text.prompt_tokens, text.conversation_tokens, text.answer_tokens) == (156, 156, 100)


def test_a_model_with_room_for_all_leaves_the_options(model: Path) -> None:
    here = load_model(str(model))
    here.config.max_position_embeddings = 4096
    choice = options(model, 160)
    fitting = within_positions(choice, here)
    assert fitting == replace(choice, recording=replace(choice.recording, positions=4096))


def test_answers_that_leave_no_room_are_refused_by_the_name_of_the_model(model: Path) -> None:
    with pytest.raises(HeadError, match="225 does not fit the 256 positions of small beside a prompt; give 224"):
        within_positions(options(model, 225), load_model(str(model)), "small")
    assert within_positions(options(model, 224)).recording.prompt_tokens == 32


def test_a_model_whose_configuration_cannot_be_read_leaves_the_options(tmp_path: Path) -> None:
    choice = options(tmp_path / "absent", 160)
    assert within_positions(choice) == choice


def test_the_least_positions_of_several_models_count(model: Path) -> None:
    here, other = load_model(str(model)), load_model(str(model))
    other.config.max_position_embeddings = 200
    assert within_positions(within_positions(options(model, 100), here), other).recording.positions == 200
    assert within_positions(within_positions(options(model, 100), other), here).recording.positions == 200


@pytest.mark.parametrize(
    ("length", "prompt", "places"),
    [
        (20, 12, [*range(20)]),  # it fits
        (25, 12, [*range(20)]),  # The prompt stays whole, and the answer loses its end.
        (18, 14, [*range(6), *range(8, 18)]),  # The prompt loses its middle, so that 8 places stay for an answer.
        (40, 30, [*range(6), *range(24, 30), *range(30, 38)]),
    ],
)
def test_a_text_keeps_the_ends_of_its_prompt_and_the_beginning_of_its_answer(
    length: int, prompt: int, places: list[int]
) -> None:
    text = RecordingOptions(taps=(), answer_tokens=8, positions=20)
    assert kept_places(length, prompt, text) == places
    assert kept_places(length, prompt, replace(text, positions=None)) == list(range(length))
