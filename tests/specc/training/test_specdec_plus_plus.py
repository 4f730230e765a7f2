"""What the head of SpecDec++ learns from, and its fit."""

from __future__ import annotations

from dataclasses import replace
from math import log
from pathlib import Path

import pytest
import torch
from small_head import LAYERS, SIZE, VOCABULARY, config

from specc.heads import build_head, load_head
from specc.heads.specdec_plus_plus import AcceptanceHead
from specc.huggingface import load_model, load_tokenizer
from specc.runtime.errors import HeadError
from specc.training.cut import cut
from specc.training.distil import Text
from specc.training.job import DraftChoice, Options
from specc.training.model_folder import save_model
from specc.training.record import RecordingOptions
from specc.training.specdec_plus_plus import REJECTION, calibration_error, drafted, fit, weighted_loss
from specc.training.specdec_plus_plus_job import train_acceptance
from specc.training.trainer import TrainerOptions

pytestmark = pytest.mark.torch


def head() -> AcceptanceHead:
    torch.manual_seed(0)
    choice = replace(
        config("medusa", VOCABULARY), architecture="specdec_plus_plus", taps=(LAYERS,), settings={"blocks": 1}
    )
    module = build_head(choice)
    assert isinstance(module, AcceptanceHead)
    return module


@torch.no_grad()
def test_each_state_is_that_of_the_draft_models_token_behind_the_models_own_text(model: Path) -> None:
    draft = load_model(str(model))
    texts = [Text(tokens=torch.arange(20, 32), prompt=5), Text(tokens=torch.arange(7) * 3, prompt=2)]
    states, accepted, own = drafted(draft, texts)
    row = 0
    for text in texts:
        for place in range(text.prompt, len(text)):
            before = text.tokens[None, :place]
            probs = draft(input_ids=before).logits[0, -1].softmax(-1)
            token = probs.argmax()
            whole = torch.cat([before, token[None, None]], 1)
            expected = draft.model(input_ids=whole).last_hidden_state[0, -1]
            torch.testing.assert_close(states[row], expected, atol=1e-4, rtol=1e-4)
            assert accepted[row] == (token == text.tokens[place])
            assert own[row] == pytest.approx(float(probs[token]), abs=1e-5)
            row += 1
    assert row == len(states) == len(accepted)


def test_a_rejection_weighs_six_times_as_much() -> None:
    logits, accepted = torch.zeros(2), torch.tensor([True, False])
    assert float(weighted_loss(logits, accepted)) == pytest.approx((1 + REJECTION) / 2 * torch.log(torch.tensor(2.0)))


def test_the_fit_foresees_what_comes_true_and_its_estimates_are_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    states = 5 + 2 * torch.randn(6000, SIZE, generator=generator)
    truth = (2 * (states[:, 3] - 5)).sigmoid()
    accepted = torch.rand(6000, generator=generator) < truth
    module = head()
    train, held_out = (states[:5000], accepted[:5000]), (states[5000:], accepted[5000:])
    progress = fit(module, train, held_out, TrainerOptions(updates=300, learning_rate=3e-3))
    estimates = module.fuse(held_out[0])[:, 0].sigmoid().detach()
    assert progress.updates <= 300 and progress.epoch > 1
    assert calibration_error(estimates, held_out[1]) < 0.07
    assert float((estimates - truth[5000:]).abs().mean()) < 0.1
    constant = torch.full_like(estimates, 0.5)
    assert float((constant - truth[5000:]).abs().mean()) > 0.2  # What a head that learns nothing reaches.


def test_the_fit_ends_when_the_held_out_loss_no_longer_falls_and_the_best_weights_stay() -> None:
    """Labels of the held-out text contradict the others, so that the loss there soon rises."""
    states = torch.randn(1200, SIZE, generator=torch.Generator().manual_seed(1))
    accepted = states[:, 0] > 0
    losses: list[float] = []
    module, options = head(), TrainerOptions(updates=10**6, learning_rate=1e-2)
    held_out = states, ~accepted
    progress = fit(module, (states, accepted), held_out, options, lambda part, loss: losses.append(loss))
    assert progress.epoch == len(losses) == losses.index(min(losses)) + 1 + options.patience
    logits = module.fuse(states)[:, 0].detach() - log(REJECTION)  # as they were before the weight was taken out
    assert float(weighted_loss(logits, held_out[1])) == pytest.approx(min(losses), abs=1e-5)


def test_a_loss_that_is_not_a_number_is_refused() -> None:
    states = torch.full((10, SIZE), torch.nan)
    with pytest.raises(HeadError, match="the loss is nan; train again with a lower --learning-rate"):
        fit(head(), (states, states[:, 0] > 0), (states, states[:, 0] > 0), TrainerOptions(updates=5))


def test_the_calibration_error_by_hand() -> None:
    estimates, accepted = torch.tensor([0.95, 0.91, 0.2, 1.0]), torch.tensor([True, False, False, True])
    assert calibration_error(estimates, accepted) == pytest.approx((abs(2.86 / 3 - 2 / 3) * 3 + 0.2) / 4, abs=1e-5)


def test_a_head_is_written_with_its_card(model: Path, tmp_path: Path) -> None:
    save_model(cut(load_model(str(model)), [0, 1]), load_tokenizer(str(model)), tmp_path / "draft", {})
    options = Options(
        model=str(model),
        recipe="specdec-plus-plus",
        output=tmp_path / "h",
        work=tmp_path / "work",
        recording=RecordingOptions(taps=(), prompts=24, answer_tokens=8, held_out=6),
        trainer=TrainerOptions(updates=2),
        draft=DraftChoice(source=str(tmp_path / "draft")),
    )
    card = train_acceptance(options)
    assert card.tokens + card.held_out == 24 * 8 and card.updates == 2 and 0 < card.accepted < 1
    assert load_head(tmp_path / "h").config.target.layers == 2
    assert f"--assistant-model {tmp_path / 'draft'} --head" in card.next_command("h")
    with pytest.raises(HeadError, match="exists; choose another output, or --overwrite"):
        train_acceptance(options)
    with pytest.raises(HeadError, match="the head reads states of a draft model; name it with --assistant-model"):
        train_acceptance(replace(options, output=tmp_path / "i", draft=DraftChoice()))
