"""Recordings: the split, the files, and that a second run records only what is missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specc.huggingface import load_model
from specc.training.answers import answer
from specc.training.prompts import Prompt
from specc.training.record import Batch, RecordingOptions, batches, mixed, record
from specc.training.shards import read_shard

pytestmark = pytest.mark.torch
OPTIONS = RecordingOptions(taps=(0, -1), answer_tokens=8, held_out=3, lanes=4)
PROMPTS = [Prompt((number + 1,) * (2 + number % 5)) for number in range(14)]


def recorded(
    target: Any,
    todo: list[Batch],
    directory: Path,
    options: RecordingOptions = OPTIONS,
    digest: str = "d",
    ends: tuple[int, ...] = (),
    **others: Any,
) -> list[Path]:
    """Record all batches."""
    files = record(target, digest, todo, directory, options, ends, **others)
    assert None not in files
    return [file for file in files if file]


def stamps(files: list[Path]) -> list[int]:
    return [file.stat().st_mtime_ns for file in files]


def test_no_prompt_is_both_held_out_and_trained_on() -> None:
    result = batches(PROMPTS, OPTIONS)
    held_out = [p for batch in result if batch.greedy for p in batch.prompts]
    trained = [p for batch in result if not batch.greedy for p in batch.prompts]
    assert set(held_out + trained) == set(PROMPTS) and len(held_out + trained) == 14 and len(held_out) == 2
    assert [batch.name for batch in result] == ["heldout-0000", "train-0000", "train-0001", "train-0002"]
    assert len({batch.seed for batch in result}) == 4


def test_sources_are_mixed_evenly_and_their_names_and_seeds_differ() -> None:
    shipped = batches(PROMPTS, OPTIONS)
    own = batches([Prompt((number,)) for number in range(30)], replace(OPTIONS, held_out=6), "self")
    result = mixed(shipped, own)
    assert sorted(result, key=id) == sorted([*shipped, *own], key=id)
    held_out = sorted(batch.name for batch in result[:3])
    assert held_out == ["heldout-0000", "self-heldout-0000", "self-heldout-0001"] and not any(
        b.greedy for b in result[3:]
    )
    sources = [batch.source for batch in result if not batch.greedy]
    assert all("" in sources[start : start + 4] for start in range(len(sources) - 4))
    assert len({batch.seed for batch in result}) == len({batch.name for batch in result}) == len(result)


def test_a_second_run_records_what_is_missing(model: Path, tmp_path: Path) -> None:
    target, todo = load_model(str(model)), batches(PROMPTS, OPTIONS)
    files = recorded(target, todo, tmp_path)
    before = stamps(files)
    whole = [text.tokens.tolist() for file in files for text in read_shard(file)]
    files[2].unlink()
    steps: list[tuple[int, int]] = []
    again = recorded(target, todo, tmp_path, advance=lambda done, tokens: steps.append((done, tokens)))
    assert again == files
    assert [old == new for old, new in zip(before, stamps(files), strict=True)] == [True, True, False, True]
    assert [text.tokens.tolist() for file in files for text in read_shard(file)] == whole
    assert steps[-1] == (4, sum(map(len, whole)))


@pytest.mark.parametrize("change", [{"answer_tokens": 9}, {"taps": (1, -1)}, {"temperature": 0.9}])
def test_recordings_of_other_options_are_made_again(change: dict[str, Any], model: Path, tmp_path: Path) -> None:
    target, todo = load_model(str(model)), batches(PROMPTS, OPTIONS)[1:2]
    before = stamps(recorded(target, todo, tmp_path))
    assert stamps(recorded(target, todo, tmp_path, replace(OPTIONS, **change))) != before


def test_recordings_of_another_model_or_of_other_turns_are_made_again(model: Path, tmp_path: Path) -> None:
    target, (batch, *_) = load_model(str(model)), batches(PROMPTS, OPTIONS)
    before = stamps(recorded(target, [batch], tmp_path))
    assert stamps(recorded(target, [batch], tmp_path, digest="e")) != before
    before = stamps(recorded(target, [batch], tmp_path))
    longer = replace(batch, prompts=[replace(prompt, later=((5,),)) for prompt in batch.prompts])
    assert stamps(recorded(target, [longer], tmp_path)) != before


def test_when_the_time_is_over_only_what_is_needed_is_recorded(model: Path, tmp_path: Path) -> None:
    todo = mixed(batches(PROMPTS, OPTIONS), batches(PROMPTS, OPTIONS, "self"))
    files = record(load_model(str(model)), "d", todo, tmp_path, OPTIONS, (), minutes=0.0)
    names = [file.stem for file in files if file]
    assert sorted(names[:2]) == ["heldout-0000", "self-heldout-0000"] and len(names) == 3 and files[3:] == [None] * 5


def test_later_turns_are_answered_and_the_whole_conversation_is_recorded(model: Path, tmp_path: Path) -> None:
    target = load_model(str(model))
    prompts = [Prompt((5, 6, 7), ((8, 9), (3,))), Prompt((4, 2)), Prompt((1, 2), ((7,),))]
    batch = Batch("heldout-0000", prompts, 0, True)
    (file,) = recorded(target, [batch], tmp_path)
    for prompt, text in zip(prompts, read_shard(file), strict=True):
        tokens = list(prompt.tokens)
        for turn in (*prompt.later, None):
            (result,) = answer(target, [tokens], count=8, ends=(), temperatures=[0.0], seed=0)
            tokens = [*result.tokens, *(turn or ())]
        assert text.tokens.tolist() == tokens and text.prompt == len(tokens) - 8
        assert len(text.states) == len(text.final) == len(tokens)


def test_the_token_that_ends_an_answer_is_not_said_twice_before_a_later_turn(model: Path, tmp_path: Path) -> None:
    target = load_model(str(model))
    (free,) = answer(target, [[5, 6, 7]], count=8, ends=(), temperatures=[0.0], seed=0)
    end = free.tokens[-3]
    batch = Batch("heldout-0000", [Prompt((5, 6, 7), ((end, 9),))], 0, True)
    (file,) = recorded(target, [batch], tmp_path, ends=(end,))
    (text,) = read_shard(file)
    first = free.tokens.index(end, 3)
    assert text.tokens.tolist()[: first + 2] == [*free.tokens[:first], end, 9]


def test_a_conversation_ends_before_it_is_too_long(model: Path, tmp_path: Path) -> None:
    batch = Batch("heldout-0000", [Prompt((5, 6, 7), ((8, 9),))], 0, True)
    (file,) = recorded(load_model(str(model)), [batch], tmp_path, replace(OPTIONS, conversation_tokens=12))
    (text,) = read_shard(file)
    assert len(text) == 3 + 8 and text.prompt == 3
