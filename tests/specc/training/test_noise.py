"""Training with noise: where it stands, and what the loss compares."""

from __future__ import annotations

import pytest
import torch
from families import tiny
from torch.nn import functional

from specc.training.distil import Text
from specc.training.noise import EVERY, SPAN, NoiseTraining, with_noise, with_span

pytestmark = pytest.mark.torch
TEXT = Text(tokens=torch.arange(1, 31), prompt=10)


def test_noise_is_a_span_of_the_answer_that_holds_earlier_tokens() -> None:
    places, random = set(), torch.Generator().manual_seed(0)
    for _ in range(300):
        noisy, start = with_span(TEXT, 10, 30, random)
        changed = (noisy != TEXT.tokens).nonzero().flatten().tolist()
        assert changed == list(range(start, start + SPAN))  # all tokens of this text differ
        assert set(noisy[start : start + SPAN].tolist()) <= set(TEXT.tokens[:start].tolist())
        places.add(start)
    assert places == set(range(10, 30 - SPAN + 1))


def test_each_part_of_an_answer_has_a_span_of_noise() -> None:
    text = Text(tokens=torch.arange(1, 4 * EVERY + 3), prompt=EVERY)
    noisy = with_noise(text, torch.Generator().manual_seed(0))
    changed = noisy != text.tokens
    assert [int(changed[first : first + EVERY].sum()) for first in range(0, len(text), EVERY)] == [0, *[SPAN] * 3, 2]


@pytest.mark.parametrize(("length", "prompt", "count"), [(13, 10, 3), (2, 0, 1), (2, 1, 1)])
def test_short_answers_have_less_noise(length: int, prompt: int, count: int) -> None:
    text = Text(tokens=torch.arange(length), prompt=prompt)
    noisy, start = with_span(text, prompt, length, torch.Generator().manual_seed(1))
    assert start >= 1 and int((noisy != torch.arange(length)).sum()) == count


def test_the_loss_is_the_cross_entropy_with_the_true_tokens_behind_the_noise() -> None:
    """In the rows of answers alone, and of several texts that differ in length."""
    model = tiny("llama")
    training, texts = NoiseTraining(model), [TEXT, Text(tokens=torch.arange(40, 57), prompt=4)]
    loss, random = training.loss(texts, 7), torch.Generator().manual_seed(7)
    each = []
    for text in texts:
        noisy = with_noise(text, random)
        rows = model(input_ids=noisy[None]).logits[0, text.prompt - 1 : -1]
        each.append(functional.cross_entropy(rows, text.tokens[text.prompt :], reduction="none"))
    torch.testing.assert_close(loss, torch.cat(each).mean())
    assert float(training.loss(texts, 8).detach()) != float(loss.detach())


def test_layers_are_trained_and_tables_are_not() -> None:
    model = tiny("llama")
    training = NoiseTraining(model)
    torch.autograd.backward(training.loss([TEXT], 0))
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (".layers." in name), name


def test_a_model_that_says_the_number_of_the_place_is_right_behind_all_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("llama")
    training = NoiseTraining(model)

    class Output:
        def __init__(self, input_ids: torch.Tensor) -> None:
            self.logits = functional.one_hot(torch.arange(input_ids.shape[1]) + 2, 100).float()[None]
            self.logits = self.logits.expand(len(input_ids), -1, -1)

    monkeypatch.setattr(training, "model", lambda input_ids, use_cache: Output(input_ids))
    assert training.rates([TEXT]) == (1.0,) * SPAN
    wrong = Text(tokens=TEXT.tokens + 50, prompt=10)
    assert training.rates([wrong]) == (0.0,) * SPAN
