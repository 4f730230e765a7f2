"""Distillation: answers that do not depend on the number of processes, and answers that are shorter than drafts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from specc.huggingface import load_model, load_tokenizer
from specc.training import distil, processes
from specc.training.acceptance import summary
from specc.training.cut import cut
from specc.training.distil import Text, ranks, write
from specc.training.prompts import read_prompts

pytestmark = pytest.mark.torch


def answers(model: Path) -> list[list[int]]:
    prompts = read_prompts([], load_tokenizer(str(model)), count=10, longest=24, seed=0)
    texts = write(load_model(str(model)), prompts, 6, [], temperature=1.0, seed=3)
    return [text.tokens.tolist() for text in texts]


def test_the_number_of_processes_does_not_change_the_answers(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distil, "ROUND", 3)
    alone = answers(model)
    rounds: list[Sequence[object]] = []

    def keep_ours(ours: Sequence[object]) -> list[object]:
        rounds.append(ours)
        return list(ours)

    monkeypatch.setattr(processes, "count", lambda: 2)
    monkeypatch.setattr(processes, "gather", keep_ours)
    parts = []
    for number in (0, 1):
        monkeypatch.setattr(processes, "number", lambda number=number: number)
        parts.append(answers(model))
    assert len(alone) == 10 and [len(ours) for ours in rounds] == [2, 2]
    first, second = parts
    assert first[:3] + second[:3] + first[3:] + second[3:] == alone


@pytest.mark.parametrize("length", [1, 2, 4, 9])
def test_answers_that_are_shorter_than_drafts_have_ranks(length: int, model: Path) -> None:
    whole = load_model(str(model))
    texts = [Text(tokens=torch.arange(5, 9 + length), prompt=4), Text(tokens=torch.arange(5, 29), prompt=4)]
    ranked = ranks(cut(whole, [0]), whole, texts, 6)
    assert [one.shape for one in ranked] == [(6, length), (6, 20)]
    assert summary(ranked).tokens == length + 20
