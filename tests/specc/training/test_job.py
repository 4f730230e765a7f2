"""A whole training of a tiny model: what it leaves, and that a second run goes on from there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from author import Author

from specc.heads import digest, load_head, save_head
from specc.huggingface import load_model, load_tokenizer
from specc.runtime.errors import HeadError, PromptError
from specc.training.job import Options, train
from specc.training.record import RecordingOptions
from specc.training.trainer import TrainerOptions

pytestmark = pytest.mark.torch


def options(model: Path, output: Path, recipe: str = "eagle3") -> Options:
    return Options(
        model=str(model),
        recipe=recipe,
        output=output,
        work=output.with_name("work"),
        recording=RecordingOptions(taps=(), prompts=24, answer_tokens=12, held_out=6),
        trainer=TrainerOptions(updates=3, tokens=600, patience=9),
        draft_vocab_size=128,
        costs={1: 1.0, 2: 1.1, 4: 1.2, 8: 1.6},
    )


def test_prompts_of_the_model_are_a_source_of_their_own(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specc.training.self_prompts.answer", Author(load_tokenizer(str(model))))
    stages: list[str] = []
    choice = replace(
        options(model, tmp_path / "h"), self_prompts=10, stage=lambda title, done, total: stages.append(title)
    )
    card = train(choice)
    assert card.by_source.keys() == card.progress_by_source.keys() == {"given", "self"}
    assert sum(part.tokens for part in card.by_source.values()) == card.acceptance.tokens
    assert "write prompts" in stages and list((tmp_path / "work").glob("self-train-*"))
    assert "Prompts `self`" in (tmp_path / "h" / "README.md").read_text()


@pytest.mark.parametrize("recipe", ["eagle3", "medusa"])
def test_a_head_is_written_with_its_card(recipe: str, model: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    choice = replace(options(model, tmp_path / "h", recipe), stage=lambda title, done, total: stages.append(title))
    card = train(choice)
    head = load_head(tmp_path / "h")
    target = load_model(str(model))
    table = target.get_input_embeddings().weight
    assert isinstance(table, torch.Tensor)
    assert head.config.target.digest == digest(table)
    assert head.config.architecture == recipe and head.vocabulary is not None and len(head.vocabulary) == 128
    assert json.loads((tmp_path / "h" / "card.json").read_text()) == json.loads(json.dumps(card.to_json()))
    page = (tmp_path / "h" / "README.md").read_text()
    assert f"{card.acceptance.chain:.2f} tokens a step" in page and "3 updates" in page
    assert card.updates == 3 and card.recorded_tokens > 100 and card.gain is not None
    kinds = list(dict.fromkeys(stage.split(" · ")[0] for stage in stages))
    assert kinds == ["load the model", "record states", "start in closed form", "train", "measure the head"]
    train_lines = [stage for stage in stages if stage.startswith("train")]
    assert all(word in train_lines[-1] for word in ("loss", "right at each depth", "tokens/s", "held-out"))


def test_two_trainings_give_equal_heads(model: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("a", "b"):
        train(options(model, tmp_path / name / "h"))
        weights.append((tmp_path / name / "h" / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_a_second_run_records_nothing_again(model: Path, tmp_path: Path) -> None:
    first = train(options(model, tmp_path / "h"))
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "work").glob("*-0*.safetensors")}
    second = train(replace(options(model, tmp_path / "h"), overwrite=True))
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "work").glob("*-0*.safetensors")} == before
    assert second.acceptance == first.acceptance


def test_a_training_goes_on_after_its_model_was_moved(model: Path, tmp_path: Path) -> None:
    train(options(model, tmp_path / "h"))
    stages: list[str] = []
    moved = shutil.copytree(model, tmp_path / "moved")
    choice = replace(options(moved, tmp_path / "h"), overwrite=True, stage=lambda title, *parts: stages.append(title))
    assert train(choice).updates == 3
    assert not [stage for stage in stages if stage.startswith("train")]


def test_an_output_that_exists_is_kept(model: Path, tmp_path: Path) -> None:
    (tmp_path / "h").mkdir()
    (tmp_path / "h" / "card.json").write_text("{}")
    with pytest.raises(HeadError, match=r"h exists; choose another output, or --overwrite"):
        train(options(model, tmp_path / "h"))
    assert list(tmp_path.iterdir()) == [tmp_path / "h"]


def test_a_recipe_without_a_head_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="no training for the recipe 'plain'; there is one for eagle3, medusa"):
        train(options(model, tmp_path / "h", "plain"))


def test_a_malformed_line_stops_before_anything_is_recorded(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a"}\n{"text": "b"}\n')
    with pytest.raises(PromptError, match=r"p\.jsonl, line 2"):
        train(replace(options(model, tmp_path / "h"), data=(file,)))
    assert not list((tmp_path / "work").glob("*.safetensors"))


def test_the_random_numbers_of_the_caller_go_on(model: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train(options(model, tmp_path / "h"))
    assert torch.equal(torch.rand(3), expected)


def test_a_training_begins_with_a_head_and_goes_on_from_its_weights(model: Path, tmp_path: Path) -> None:
    train(options(model, tmp_path / "h"))
    first = load_head(tmp_path / "h")
    for weight in first.parameters():
        weight.mul_(1.5)  # Now a closed form cannot lead to these weights.
    save_head(first, tmp_path / "h", {})
    choice = replace(options(model, tmp_path / "better"), head=tmp_path / "h")
    card = train(replace(choice, trainer=TrainerOptions(updates=1, tokens=600, learning_rate=1e-9)))
    second = load_head(tmp_path / "better")
    assert card.origin == "h" and "Begun with: the head h" in (tmp_path / "better" / "README.md").read_text()
    for name, weight in first.named_parameters():
        assert torch.allclose(weight, second.get_parameter(name), rtol=0.02, atol=1e-3)


def test_a_head_to_begin_with_whose_weights_are_not_finite_is_refused_by_its_name(model: Path, tmp_path: Path) -> None:
    train(options(model, tmp_path / "h"))
    head = load_head(tmp_path / "h")
    next(head.parameters()).fill_(torch.nan)
    save_head(head, tmp_path / "h", {})
    message = r"/h/model.safetensors has the number nan in .*; all must be finite; train the head again"
    with pytest.raises(HeadError, match=message):
        train(replace(options(model, tmp_path / "better"), head=tmp_path / "h"))


def test_a_training_refuses_to_begin_with_a_head_of_another_architecture(model: Path, tmp_path: Path) -> None:
    train(options(model, tmp_path / "h", "medusa"))
    choice = replace(options(model, tmp_path / "other" / "h"), head=tmp_path / "h")
    with pytest.raises(HeadError, match="h is a head of medusa, and the recipe trains eagle3; give a head of"):
        train(choice)
    assert not (tmp_path / "other" / "h").exists()


@pytest.mark.parametrize(
    "key, value, text",
    [
        ("digest", "0" * 16, "whose embeddings are not those of"),
        ("taps", [1, 1, -1], r"reads the states after layers 1, 1, -1, and a training records those after"),
    ],
)
def test_a_training_refuses_to_begin_with_a_head_of_another_model_or_of_other_layers(
    key: str, value: object, text: str, model: Path, tmp_path: Path
) -> None:
    train(options(model, tmp_path / "h"))
    config = json.loads((tmp_path / "h" / "config.json").read_text())
    (config["target"] if key in config["target"] else config)[key] = value
    (tmp_path / "h" / "config.json").write_text(json.dumps(config))
    with pytest.raises(HeadError, match=text):
        train(replace(options(model, tmp_path / "other" / "h"), head=tmp_path / "h"))
    assert not (tmp_path / "other" / "h").exists()
