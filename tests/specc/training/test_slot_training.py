"""A model that is trained together with a head of slots: which guesses count how much, and what learns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from families import tiny
from tiny_heads import random_head
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from specc.heads.guess_slots import SlotHead
from specc.training.courses import COURSES
from specc.training.distil import Text
from specc.training.slot_training import OUTSIDE, LexicalUnitTraining, MarkedText, SlotTraining, StreamTraining
from specc.training.states import layers_of

pytestmark = pytest.mark.torch
Kind = Callable[[PreTrainedModel, SlotHead], SlotTraining]
KINDS = pytest.mark.parametrize(
    ("recipe", "kind"), [("lexical-units", LexicalUnitTraining), ("speculative-streaming", StreamTraining)]
)
TEXTS = [Text(tokens=torch.arange(1, 16), prompt=4), Text(tokens=torch.arange(20, 30), prompt=3)]


def begun(recipe: str, kind: Kind) -> SlotTraining:
    head = random_head(COURSES[recipe])
    assert isinstance(head, SlotHead)
    training = kind(tiny("llama"), head)
    training.begin(TEXTS)
    return training


@KINDS
def test_the_loss_is_that_of_the_next_tokens_and_the_weighted_one_of_the_guesses(recipe: str, kind: Kind) -> None:
    """Each guess by a run of its own text, so that padding and rows of prompts count for nothing."""
    training = begun(recipe, kind)
    texts = training.mark(TEXTS)
    loss = training.loss(texts, 0)
    next_tokens: list[Tensor] = []
    pairs: list[tuple[Tensor, Tensor]] = []
    for text in texts:
        plain, guesses = training._run(text.tokens[None, :-1])
        weights = training.weights([text], torch.ones(guesses.shape[:3], dtype=torch.bool))
        for row in range(text.prompt - 1, len(text) - 1):
            truth = text.tokens[row + 1 :]
            next_tokens.append(functional.cross_entropy(training._logits(plain[0, row]), truth[0]))
            for k in range(min(training.head.count, len(truth) - 1)):
                each = functional.cross_entropy(training._logits(guesses[0, row, k]), truth[k + 1])
                pairs.append((weights[0, row, k], each))
    total = sum(weight * each for weight, each in pairs) / sum(weight for weight, _ in pairs)
    torch.testing.assert_close(loss, torch.stack(next_tokens).mean() + total, atol=1e-4, rtol=1e-4)


@KINDS
def test_what_is_trained_gets_slopes_and_nothing_else_does(recipe: str, kind: Kind) -> None:
    training = begun(recipe, kind)
    torch.nn.init.normal_(training.head.get_parameter("table"), std=0.3)
    for name, parameter in training.modules.named_parameters():
        if name.endswith(".up"):
            torch.nn.init.normal_(parameter, std=0.1)
    torch.autograd.backward(training.loss(training.mark(TEXTS), 0))
    ours = dict(training.modules.named_parameters())
    learned = [name for name, parameter in ours.items() if parameter.requires_grad]
    assert any(name.startswith("head.") for name in learned) and len({name.split(".")[0] for name in learned}) == 2
    assert all(ours[name].grad is not None for name in learned)
    others = {id(parameter) for parameter in ours.values()}
    assert all(each.grad is None for each in training.model.parameters() if id(each) not in others)


def test_a_guess_counts_whole_inside_of_a_lexical_unit_alone() -> None:
    """Tokens 5, 6 and 7 are a unit: behind token 4 two guesses, behind 5 one. Token 5 itself is no guess behind 4."""
    training = begun("lexical-units", LexicalUnitTraining)
    sure = torch.tensor([False, False, False, False, False, True, True, True, False, True])
    text = MarkedText(tokens=torch.arange(1, 11), prompt=2, sure=sure)
    weights = training.weights([text], torch.ones(1, 9, 3, dtype=torch.bool))[0]
    inside = {(int(row), int(k)) for row, k in (weights == 1).nonzero()}
    assert inside == {(4, 0), (4, 1), (5, 0)}
    assert weights.unique().tolist() == pytest.approx([OUTSIDE, 1.0])


def test_tokens_of_which_the_model_is_sure_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    training = begun("lexical-units", LexicalUnitTraining)
    model = training.model
    truth = model(input_ids=TEXTS[0].tokens[None, :-1]).logits[0].softmax(-1)
    probs = truth.gather(1, TEXTS[0].tokens[1:, None])[:, 0].detach()
    monkeypatch.setattr("specc.training.slot_training.SURE", float(probs.median()))
    (marked,) = training.mark(TEXTS[:1])
    assert isinstance(marked, MarkedText)
    assert marked.sure.tolist() == [False, *(probs >= probs.median()).tolist()]


def test_streams_run_in_the_layers_that_have_adapters() -> None:
    training = begun("speculative-streaming", StreamTraining)
    after = training.head.after
    assert after is not None
    adapted = {
        int(name.split(".")[1].split("/")[0]) for name, _ in training.modules.named_parameters() if "adapt" in name
    }
    assert adapted == set(range(after + 1, len(layers_of(training.model))))


@KINDS
def test_rates_are_those_of_the_guesses_that_foretell_answers(recipe: str, kind: Kind) -> None:
    training = begun(recipe, kind)
    rates = training.rates(TEXTS)
    assert len(rates) == training.head.count
    right, tried = [0] * len(rates), [0] * len(rates)
    for text in TEXTS:
        _, guesses = training._run(text.tokens[None, :-1])
        tokens = training._logits(guesses).argmax(-1)[0]
        for row in range(text.prompt - 1, len(text) - 1):
            for k in range(min(len(rates), len(text) - row - 2)):
                right[k] += int(tokens[row, k] == text.tokens[row + 2 + k])
                tried[k] += 1
    assert rates == pytest.approx([hits / tries for hits, tries in zip(right, tried, strict=True)], abs=1e-4)
