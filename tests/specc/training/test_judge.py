"""Marked answers, and the fit of the head that judges tokens."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from specc.huggingface import load_tokenizer
from specc.runtime.errors import PromptError
from specc.training.distil import Text
from specc.training.judge import Marked, auc, corrupt, fit, fitting, read_marked, split
from specc.training.record import RecordingOptions

pytestmark = pytest.mark.torch


def test_wrong_tokens_are_the_replaced_ones_and_lie_in_answers() -> None:
    text = Text(tokens=torch.arange(400) % 50, prompt=100)
    (marked,) = corrupt([text], 50, seed=0)
    assert torch.equal(marked.good, marked.tokens == text.tokens)
    assert marked.good[:100].all() and not marked.counts[:100].any() and marked.counts[100:].all()
    assert 20 < int((~marked.good).sum()) < 80


def test_the_token_with_the_first_mistake_is_wrong_and_what_follows_does_not_count(model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(model))
    file = tmp_path / "m.jsonl"
    lines = [
        {"prompt": "def f", "answer": "return width"},
        {"prompt": "def f", "answer": "return xyz", "wrong_from": 7},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    right, wrong = read_marked(file, tokenizer)
    assert right.good[right.counts].all() and int(right.counts.sum()) == len(tokenizer.encode("return width"))
    assert wrong.good[wrong.counts].tolist()[-1] is False and int((~wrong.good[wrong.counts]).sum()) == 1
    last = int(wrong.counts.nonzero()[-1])
    assert "x" in tokenizer.decode(wrong.tokens[last : last + 1])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "a", "answer": "b", "wrong_from": 9}', "line 2: wrong_from is 9; give a number of characters"),
        ('{"prompt": "a"}', "line 2: expected a prompt and an answer, both text"),
        ("{", "line 2: .*give JSON lines"),
    ],
)
def test_a_line_of_another_form_is_named(line: str, message: str, model: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text(f'{{"prompt": "a", "answer": "b"}}\n{line}\n')
    with pytest.raises(PromptError, match=message):
        read_marked(file, load_tokenizer(str(model)))


def test_prompts_without_answers_have_no_marks(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a"}\n')
    assert read_marked(file, load_tokenizer(str(model))) == read_marked(tmp_path / "book.txt", None) == []


def test_the_fit_finds_the_direction_that_tells_them_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    good = torch.rand(600, generator=generator) < 0.9
    states = torch.randn(600, 8, generator=generator)
    states[:, 2] += 3 * good
    weight, bias = fit(states, good)
    scores = states @ weight[0] + bias
    assert weight.shape == (1, 8) and weight.abs().argmax() == 2
    assert auc(scores, good) > 0.9 and float((scores[good] > 0).float().mean()) > 0.9
    assert float((scores[~good] > 0).float().mean()) < 0.2  # They weigh as much as the good ones, though they are few.


def test_auc_counts_pairs_and_half_of_the_equal_ones() -> None:
    scores, good = torch.tensor([3.0, 1.0, 1.0, 0.0]), torch.tensor([True, True, False, False])
    assert auc(scores, good) == pytest.approx((1 + 1 + 0.5 + 1) / 4)


def test_a_fifth_at_most_is_held_out() -> None:
    texts = corrupt([Text(tokens=torch.arange(9), prompt=1)] * 10, 50, 0)
    training, held_out = split(texts, 64, 0)
    assert (len(training), len(held_out)) == (8, 2)


def test_a_marked_answer_is_cut_to_the_positions_with_its_marks() -> None:
    tokens = torch.arange(30)
    marked = Marked(tokens=tokens, good=tokens < 25, counts=tokens >= 18)
    text = RecordingOptions(taps=(), answer_tokens=8, positions=16)
    cut = fitting(marked, text)
    assert cut.tokens.tolist() == [0, 1, 2, 3, 14, 15, 16, 17, *range(18, 26)]
    assert cut.good.tolist() == [True] * 15 + [False] and cut.counts.tolist() == [False] * 8 + [True] * 8
    whole = fitting(marked, replace(text, positions=None))
    assert torch.equal(whole.tokens, tokens) and torch.equal(whole.counts, marked.counts)
