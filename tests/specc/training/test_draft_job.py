"""A whole training of a tiny draft model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from specc.huggingface import load_model, load_tokenizer
from specc.runtime.errors import HeadError
from specc.training.cut import cut
from specc.training.distil import Distiller, Text, both_logits
from specc.training.divergences import forward_kl
from specc.training.draft_job import texts_of, train_draft
from specc.training.job import DraftChoice, Options
from specc.training.record import RecordingOptions
from specc.training.trainer import TrainerOptions

pytestmark = pytest.mark.torch


def options(model: Path, output: Path) -> Options:
    return Options(
        model=str(model),
        recipe="draft-model",
        output=output,
        work=output.with_name("work"),
        recording=RecordingOptions(taps=(), prompts=24, answer_tokens=8, held_out=4),
        trainer=TrainerOptions(updates=2, tokens=600),
        draft=DraftChoice(layers=1),
        costs={1: 1.0, 2: 1.1, 4: 1.2, 8: 1.6},
    )


def test_a_draft_model_is_written_with_its_card_and_a_second_run_begins_where_the_first_ended(
    model: Path, tmp_path: Path
) -> None:
    card = train_draft(options(model, tmp_path / "d"))
    draft, whole = load_model(str(tmp_path / "d")), load_model(str(model))
    assert (draft.config.num_hidden_layers, card.layers, card.updates) == (1, (0,), 2)
    assert json.loads((tmp_path / "d" / "card.json").read_text()) == json.loads(json.dumps(card.to_json()))
    assert "1 updates" not in (tmp_path / "d" / "README.md").read_text() and card.gain is not None
    assert (tmp_path / "d" / "tokenizer.json").is_file()
    ours, theirs = draft.get_parameter("model.norm.weight"), whole.get_parameter("model.norm.weight")
    assert torch.equal(ours, theirs)
    weights = [each.get_parameter("model.layers.0.mlp.up_proj.weight") for each in (draft, whole)]
    assert not torch.equal(*weights)
    stages: list[str] = []
    choice = replace(options(model, tmp_path / "d"), overwrite=True, stage=lambda title, *parts: stages.append(title))
    assert train_draft(choice).alpha == card.alpha and not [title for title in stages if title.startswith("distil")]


def test_s2d_trains_each_exit_and_the_card_says_what_each_reaches(model: Path, tmp_path: Path) -> None:
    choice = replace(options(model, tmp_path / "d"), recipe="s2d", draft=DraftChoice(layers=2))
    card = train_draft(choice)
    assert [rate.layers for rate in card.exits] == [1, 2]
    assert (card.alpha, card.alpha_before) == (card.exits[1].alpha, card.exits[1].alpha_before)
    assert all(0 <= number <= 1 for rate in card.exits for number in (rate.alpha, rate.alpha_before, rate.right))
    assert "exit after 1: " in (tmp_path / "d" / "README.md").read_text()
    assert card.next_command("d").endswith("--assistant-model d --recipe s2d -o model.specc")


def test_a_recursive_draft_model_is_made_of_the_model_and_trained_further(model: Path, tmp_path: Path) -> None:
    choice = replace(options(model, tmp_path / "d"), recipe="relaxed-recursive", draft=DraftChoice(rank=2))
    card = train_draft(choice)
    draft, whole = load_model(str(tmp_path / "d")), load_model(str(model))
    assert (card.loops, card.rank, [rate.layers for rate in card.exits]) == (3, 2, [1, 2, 3])
    assert card.alpha == card.exits[0].alpha and card.gain is not None
    assert card.parameters == sum(p.numel() for p in draft.parameters()) < sum(p.numel() for p in whole.parameters())
    assert "in 3 loops, with products of rank 2" in (tmp_path / "d" / "README.md").read_text()
    stages: list[str] = []
    again = replace(choice, overwrite=True, stage=lambda title, *parts: stages.append(title))
    assert train_draft(again).alpha == card.alpha and not [title for title in stages if title.startswith("distil")]
    further = replace(choice, output=tmp_path / "e", work=tmp_path / "f", draft=DraftChoice(source=str(tmp_path / "d")))
    assert train_draft(further).loops == 3 and load_model(str(tmp_path / "e")).config.relaxed_recursive["rank"] == 2
    with pytest.raises(HeadError, match="has no loops; leave out --assistant-model"):
        train_draft(replace(further, output=tmp_path / "g", draft=DraftChoice(source=str(model))))


def test_the_loss_is_the_mean_of_the_exits(model: Path, tmp_path: Path) -> None:
    draft, whole = cut(load_model(str(model)), [0, 2]), load_model(str(model))
    trainer, text = TrainerOptions(updates=1, tokens=600), [Text(tokens=torch.arange(40), prompt=10)]
    losses = [
        Distiller(draft, whole, forward_kl, 0.0, trainer, tmp_path / "c.safetensors", {}, exits=exits).loss(text)
        for exits in ((1,), (2,), (1, 2), ())
    ]
    first, second, both, all_layers = (float(loss.detach()) for loss in losses)
    assert both == pytest.approx((first + second) / 2) and all_layers == second != first


def test_a_draft_model_to_begin_with_is_distilled_as_it_is(model: Path, tmp_path: Path) -> None:
    choice = replace(options(model, tmp_path / "d"), draft=DraftChoice(source=str(model), own_text=0.0))
    card = train_draft(choice)
    assert card.layers == () and card.source == str(model)
    assert card.alpha_before == pytest.approx(1, abs=1e-3)


def test_an_output_that_exists_and_too_many_layers_are_refused(model: Path, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "card.json").write_text("{}")
    with pytest.raises(HeadError, match="exists; choose another output, or --overwrite"):
        train_draft(options(model, tmp_path / "d"))
    with pytest.raises(HeadError, match=r"give 1\.\.2"):
        train_draft(replace(options(model, tmp_path / "e"), draft=DraftChoice(layers=3)))
    with pytest.raises(HeadError, match="unknown divergence"):
        train_draft(replace(options(model, tmp_path / "e"), draft=DraftChoice(divergence="l2")))


def test_online_training_learns_from_what_the_draft_did_not_foresee_and_changes_matrices_alone(
    model: Path, tmp_path: Path
) -> None:
    draft, whole = cut(load_model(str(model)), [0, 1]), load_model(str(model))
    before = {name: weight.clone() for name, weight in draft.state_dict().items()}
    text = Text(tokens=torch.arange(40), prompt=10)
    rows: list[torch.Tensor] = []

    def divergence(logits: torch.Tensor, model_logits: torch.Tensor) -> torch.Tensor:
        rows.append(logits)
        return forward_kl(logits, model_logits)

    trainer = TrainerOptions(updates=2, tokens=600, warm_up=1)
    Distiller(draft, whole, divergence, 0.0, trainer, tmp_path / "c.safetensors", {}, online=True).run(
        [text], [], 8, []
    )
    logits, _ = both_logits(cut(whole, [0, 1]), whole, [text] * 12)
    foreseen = logits.argmax(-1) == torch.cat([text.tokens[10:]] * 12)
    assert len(rows[0]) <= 48 * 30 - int(foreseen.sum())
    for name, weight in draft.state_dict().items():
        is_trained = weight.ndim > 1 and ".layers." in name
        assert torch.equal(weight, before[name]) != is_trained, name


def test_served_answers_are_learned_from_as_they_are(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text("".join(f'{{"prompt": "def f{i}"}}\n' for i in range(6)))
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps({"index": i, "id": None, "chat": False, "token_ids": [i, 1, 2]}) + "\n" for i in range(6))
    )
    choice = DraftChoice(layers=1, own_text=0.0, online=True, answers=tmp_path / "a.jsonl")
    card = train_draft(replace(options(model, tmp_path / "d"), data=(tmp_path / "p.jsonl",), draft=choice))
    assert card.updates == 2


def test_served_texts_are_cut_to_the_positions_so_that_answers_fit_behind_their_prompts(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "p.jsonl").write_text("".join(f'{{"prompt": "def f{i}(a, b, c, d, e, f, g):"}}\n' for i in range(5)))
    rows = [{"index": i, "id": None, "chat": False, "token_ids": list(range(30))} for i in range(5)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    choice = replace(
        options(model, tmp_path / "d"),
        data=(tmp_path / "p.jsonl",),
        draft=DraftChoice(answers=tmp_path / "a.jsonl"),
        recording=RecordingOptions(taps=(), answer_tokens=12, held_out=1),
    )
    here, tokenizer = load_model(str(model)), load_tokenizer(str(model))
    _, prompts, answers = texts_of(choice, here, tokenizer)
    size = len(prompts[0].tokens)  # All prompts have so many tokens.
    assert {len(prompt.tokens) for prompt in prompts} == {size} and {len(one) for one in answers} == {size + 30}
    for positions, prompt_size in ((size + 14, size), (size + 6, size - 6)):
        text = replace(choice.recording, positions=positions)
        _, prompts, answers = texts_of(replace(choice, recording=text), here, tokenizer)
        assert {len(prompt.tokens) for prompt in prompts} == {one.prompt for one in answers} == {prompt_size}
        assert {len(one) for one in answers} == {positions}
        assert all(one.tokens[prompt_size:].tolist() == list(range(positions - prompt_size)) for one in answers)
