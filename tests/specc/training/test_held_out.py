"""How many texts are held out, and the warning where that is fewer than were asked for."""

from __future__ import annotations

import warnings

import pytest

from specc.runtime.errors import SpeccWarning
from specc.training.held_out import held_out_count

pytestmark = pytest.mark.torch


def test_as_many_texts_are_held_out_as_were_asked_for_if_they_are_a_fifth_or_fewer() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [held_out_count(number, 30) for number in (1, 5, 6)] == [1, 5, 6]
        assert held_out_count(1, 2) == 1


@pytest.mark.parametrize(("number", "count", "held_out"), [(7, 30, 6), (64, 24, 4), (2, 3, 1), (1000, 2, 1)])
def test_a_warning_names_both_numbers_where_fewer_texts_are_held_out(number: int, count: int, held_out: int) -> None:
    with pytest.warns(SpeccWarning, match=f"^{held_out} of {count} answers are held out, not {number}: .* smaller"):
        assert held_out_count(number, count, "answers") == held_out


def test_each_training_counts_its_held_out_texts_so() -> None:
    torch = pytest.importorskip("torch")
    from specc.training.judge import Marked, split
    from specc.training.prompts import Prompt
    from specc.training.record import RecordingOptions, batches

    marks = torch.ones(2, dtype=torch.bool)
    texts = [Marked(tokens=torch.tensor([1, number]), good=marks, counts=marks) for number in range(10)]
    with pytest.warns(SpeccWarning, match="^2 of 10 marked answers are held out, not 5"):
        assert [len(part) for part in split(texts, 5, seed=0)] == [8, 2]
    prompts = [Prompt((number,)) for number in range(10)]
    with pytest.warns(SpeccWarning, match="^2 of 10 self prompts are held out, not 5"):
        assert len(batches(prompts, RecordingOptions(taps=(), held_out=5), "self")[0].prompts) == 2
