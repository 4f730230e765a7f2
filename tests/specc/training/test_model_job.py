"""A whole training of a tiny model itself."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from specc.heads import load_head
from specc.huggingface import load_model
from specc.runtime.errors import HeadError
from specc.training.job import Options
from specc.training.jobs import TRAININGS, training_of
from specc.training.model_job import train_model
from specc.training.model_kinds import MODEL_KINDS
from specc.training.record import RecordingOptions
from specc.training.teacher import teacher_of
from specc.training.trainer import TrainerOptions

pytestmark = pytest.mark.torch


def options(model: Path, output: Path, recipe: str) -> Options:
    return Options(
        model=str(model),
        recipe=recipe,
        output=output,
        work=output.with_name("work"),
        recording=RecordingOptions(taps=(), prompts=24, answer_tokens=8, held_out=4),
        trainer=TrainerOptions(updates=2, tokens=600),
    )


@pytest.mark.parametrize("recipe", MODEL_KINDS)
def test_a_trained_model_is_written_with_its_card_and_its_head_and_a_second_run_goes_on(
    recipe: str, model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m"
    card = train_model(options(model, output, recipe))
    ours, theirs = load_model(str(output)), load_model(str(model))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    changed = {name for name, weight in ours.state_dict().items() if not torch.equal(weight, theirs.state_dict()[name])}
    assert changed and all(".layers." in name for name in changed)
    assert json.loads((output / "card.json").read_text()) == json.loads(json.dumps(card.to_json()))
    assert card.updates == 2 and all(0 <= rate <= 1 for rate in (*card.rates, *card.rates_before, card.same))
    assert recipe in (output / "README.md").read_text() and (output / "tokenizer.json").is_file()
    assert card.has_head == (output / "head").is_dir() == (f"--head {output}/head" in card.next_command(str(output)))
    if card.has_head:
        assert load_head(output / "head").config.target.digest == teacher_of(ours, "m").target.digest
    again = replace(options(model, output, recipe), overwrite=True)
    assert replace(train_model(again), minutes=card.minutes) == card
    resumed = load_model(str(output))
    assert all(torch.equal(weight, ours.state_dict()[name]) for name, weight in resumed.state_dict().items())


def test_the_model_is_trained_where_the_user_or_the_recipe_asks_for_it() -> None:
    assert training_of("tr-jacobi") is training_of("lexical-units", with_model=True) is train_model
    assert training_of("lexical-units") is TRAININGS["eagle3"]
    with pytest.raises(HeadError, match="the training of medusa leaves the model as it is; leave out --with-model"):
        training_of("medusa", with_model=True)
    with pytest.raises(HeadError, match="no recipe 'eagle9' that can be trained"):
        training_of("eagle9", with_model=True)
