"""Recordings: the split, the files, and that a second run records only what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specc.huggingface import load_model
from specc.training.record import RecordingOptions, batches, record
from specc.training.shards import read_shard

pytestmark = pytest.mark.torch
OPTIONS = RecordingOptions(taps=(0, -1), answer_tokens=8, held_out=3, lanes=4)
PROMPTS = [[number + 1] * (2 + number % 5) for number in range(14)]


def stamps(files: list[Path]) -> list[int]:
    return [file.stat().st_mtime_ns for file in files]


def test_no_prompt_is_both_held_out_and_trained_on() -> None:
    result = batches(PROMPTS, OPTIONS)
    held_out = [p for batch in result if batch.greedy for p in batch.prompts]
    trained = [p for batch in result if not batch.greedy for p in batch.prompts]
    assert sorted(held_out + trained) == sorted(PROMPTS) and len(held_out) == 2
    assert [batch.name for batch in result] == ["heldout-0000", "train-0000", "train-0001", "train-0002"]
    assert len({batch.seed for batch in result}) == 4


def test_a_second_run_records_what_is_missing(model: Path, tmp_path: Path) -> None:
    target, todo = load_model(str(model)), batches(PROMPTS, OPTIONS)
    files = record(target, "d", todo, tmp_path, OPTIONS, ())
    before = stamps(files)
    whole = [text.tokens.tolist() for file in files for text in read_shard(file)]
    files[2].unlink()
    steps: list[tuple[int, int]] = []
    assert record(target, "d", todo, tmp_path, OPTIONS, (), lambda done, tokens: steps.append((done, tokens))) == files
    assert [old == new for old, new in zip(before, stamps(files), strict=True)] == [True, True, False, True]
    assert [text.tokens.tolist() for file in files for text in read_shard(file)] == whole
    assert steps[-1] == (4, sum(map(len, whole)))


@pytest.mark.parametrize("change", [{"answer_tokens": 9}, {"taps": (1, -1)}, {"temperature": 0.9}])
def test_recordings_of_other_options_are_made_again(change: dict[str, Any], model: Path, tmp_path: Path) -> None:
    target, todo = load_model(str(model)), batches(PROMPTS, OPTIONS)[1:2]
    before = stamps(record(target, "d", todo, tmp_path, OPTIONS, ()))
    assert stamps(record(target, "d", todo, tmp_path, replace(OPTIONS, **change), ())) != before


def test_recordings_of_another_model_are_made_again(model: Path, tmp_path: Path) -> None:
    target, todo = load_model(str(model)), batches(PROMPTS, OPTIONS)[:1]
    before = stamps(record(target, "d", todo, tmp_path, OPTIONS, ()))
    assert stamps(record(target, "e", todo, tmp_path, OPTIONS, ())) != before


def test_when_the_time_is_over_only_what_is_needed_is_recorded(model: Path, tmp_path: Path) -> None:
    files = record(load_model(str(model)), "d", batches(PROMPTS, OPTIONS), tmp_path, OPTIONS, (), minutes=0.0)
    assert [file.stem for file in files] == ["heldout-0000", "train-0000"]
