"""Record what a head learns from: the model's answers, and its states beside each token."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from specc.training.answers import answer
from specc.training.shards import Recording, read_notes, read_shard, write_shard
from specc.training.states import read_states

TRAIN, HELD_OUT = "train", "heldout"
SORTED = 4  # batches whose prompts are sorted by length together


@dataclass(frozen=True, kw_only=True)
class RecordingOptions:
    """The options of a recording.

    Attributes:
        taps: the layers after which states are kept.
        answer_tokens: the largest number of tokens of an answer.
        prompt_tokens: the largest number of tokens of a prompt.
        prompts: the largest number of prompts.
        held_out: how many prompts are kept for the evaluation.
        lanes: how many prompts are answered at once.
        temperature: of every second answer to train on. The others, and the held-out ones, are greedy.
        seed: of the split, the order and the samples.
    """

    taps: tuple[int, ...]
    answer_tokens: int = 160
    prompt_tokens: int = 320
    prompts: int = 2500
    held_out: int = 64
    lanes: int = 192
    temperature: float = 0.7
    seed: int = 0


@dataclass(frozen=True)
class Batch:
    """Prompts that are answered together and recorded in one file.

    Attributes:
        name: of the file, without its ending.
        prompts: tokens of each.
        seed: of the samples.
        greedy: whether all answers are greedy.
    """

    name: str
    prompts: list[list[int]]
    seed: int
    greedy: bool


def batches(prompts: Sequence[list[int]], options: RecordingOptions) -> list[Batch]:
    """Split prompts into the held-out ones and those to train on, and both into batches.

    Args:
        prompts: tokens of each, in random order.
        options: how many are held out, and how many a batch has.

    Returns:
        The held-out batches first, so that a recording that is cut short has them.
    """
    held_out = min(options.held_out, max(1, len(prompts) // 5))
    result: list[Batch] = []
    for split, part in ((HELD_OUT, prompts[:held_out]), (TRAIN, prompts[held_out:])):
        groups = list(_groups(part, options))
        for number, group in enumerate(groups):
            seed = options.seed * 100003 + len(result)
            result.append(Batch(f"{split}-{number:04}", group, seed, split == HELD_OUT))
    return result


def _groups(prompts: Sequence[list[int]], options: RecordingOptions) -> Iterator[list[list[int]]]:
    """Yield groups of prompts of like length. The order of their lengths is random."""
    window = SORTED * options.lanes
    rng = random.Random(options.seed)
    for start in range(0, len(prompts), window):
        ordered = sorted(prompts[start : start + window], key=len)
        groups = [ordered[i : i + options.lanes] for i in range(0, len(ordered), options.lanes)]
        rng.shuffle(groups)
        yield from groups


def record(
    model: PreTrainedModel,
    digest: str,
    batches: Sequence[Batch],
    directory: Path,
    options: RecordingOptions,
    ends: Sequence[int],
    advance: Callable[[int, int], None] = lambda done, tokens: None,
    minutes: float = inf,
) -> list[Path]:
    """Answer and record each batch. A batch whose file is there is left as it is.

    Args:
        model: the model, in the type in which it shall compute.
        digest: of the model's weights.
        batches: what to record.
        directory: where the files go.
        options: how answers are made, and which states are kept.
        ends: the tokens that end an answer.
        advance: called with the number of batches that are done, and of their tokens.
        minutes: after this time no batch is begun, but those that are needed: the held-out ones and one more.

    Returns:
        The files, in the order of the batches.
    """
    directory.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    tokens, begin = 0, time.monotonic()
    for done, batch in enumerate(batches):
        file = directory / f"{batch.name}.safetensors"
        notes = _notes(batch, digest, options)
        if read_notes(file) != notes:
            if time.monotonic() - begin > 60 * minutes and any(f.name.startswith(TRAIN) for f in files):
                continue
            recordings = _record_batch(model, batch, options, ends)
            write_shard(file, recordings, notes)
        tokens += sum(len(recording) for recording in read_shard(file))
        advance(done + 1, tokens)
        files.append(file)
    return files


def _record_batch(
    model: PreTrainedModel, batch: Batch, options: RecordingOptions, ends: Sequence[int]
) -> list[Recording]:
    answers = answer(
        model,
        batch.prompts,
        count=options.answer_tokens,
        ends=ends,
        temperature=0.0 if batch.greedy else options.temperature,
        seed=batch.seed,
    )
    states = read_states(model, [a.tokens for a in answers], options.taps)
    return [
        Recording(tokens=torch.tensor(a.tokens), states=tapped, final=final, prompt=a.prompt)
        for a, (tapped, final) in zip(answers, states, strict=True)
    ]


def _notes(batch: Batch, digest: str, options: RecordingOptions) -> dict[str, Any]:
    """Return what a shard depends on."""
    settings = dataclasses.asdict(options)
    return {
        "model": digest,
        "taps": list(options.taps),
        "answer_tokens": options.answer_tokens,
        "temperature": 0.0 if batch.greedy else settings["temperature"],
        "seed": batch.seed,
        "prompts": _digest_of(batch.prompts),
    }


def _digest_of(prompts: Sequence[Sequence[int]]) -> str:
    return hashlib.sha256(repr(prompts).encode()).hexdigest()[:16]
