"""Record what a head learns from: the model's answers, and its states beside each token."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import random
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from specc.training import processes
from specc.training.answers import Answer, answer
from specc.training.held_out import held_out_count
from specc.training.prompts import Prompt
from specc.training.shards import Recording, Sizes, read_notes, read_shard, write_shard

TRAIN, HELD_OUT = "train", "heldout"
SORTED = 4  # batches whose prompts are sorted by length together


@dataclass(frozen=True, kw_only=True)
class RecordingOptions:
    """The options of a recording.

    Attributes:
        taps: the layers after which states are kept.
        answer_tokens: the largest number of tokens of an answer.
        prompt_tokens: the largest number of tokens of a prompt.
        conversation_tokens: the largest number of tokens of the prompt of a later turn, all before included.
        positions: tokens of a text, prompt and answer together; None if the model does not say.
        prompts: the largest number of prompts.
        held_out: how many prompts are kept for the evaluation.
        lanes: how many prompts are answered at once.
        temperature: of every second answer to train on. The others, and the held-out ones, are greedy.
        seed: of the split, the order and the samples.
    """

    taps: tuple[int, ...]
    answer_tokens: int = 160
    prompt_tokens: int = 320
    conversation_tokens: int = 960
    positions: int | None = None
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
        prompts: what is answered.
        seed: of the samples.
        greedy: whether all answers are greedy: those of held-out prompts.
        source: where the prompts come from.
    """

    name: str
    prompts: list[Prompt]
    seed: int
    greedy: bool
    source: str = ""


def batches(prompts: Sequence[Prompt], options: RecordingOptions, source: str = "") -> list[Batch]:
    """Split prompts into the held-out ones and those to train on, and both into batches.

    Args:
        prompts: the prompts, in random order.
        options: how many are held out, and how many a batch has.
        source: names where the prompts come from, if there are several sources. It begins the names of the batches.

    Returns:
        The held-out batches first, so that a recording that is cut short has them.
    """
    held_out = held_out_count(options.held_out, len(prompts), f"{source} prompts".strip())
    first = options.seed * 100003 + zlib.crc32(source.encode())
    prefix = f"{source}-" if source else ""
    result: list[Batch] = []
    for split, part in ((HELD_OUT, prompts[:held_out]), (TRAIN, prompts[held_out:])):
        for number, group in enumerate(_groups(part, options)):
            name = f"{prefix}{split}-{number:04}"
            result.append(Batch(name, group, first + len(result), split == HELD_OUT, source))
    return result


def mixed(*sources: Sequence[Batch]) -> list[Batch]:
    """Mix the batches of several sources, so that each prefix has about as much of each.

    Returns:
        All held-out batches, then those to train on.
    """
    parts = [
        (not batch.greedy, (number + 1) / len(batches), order, batch)
        for order, batches in enumerate(sources)
        for number, batch in enumerate(batches)
    ]
    return [batch for *_, batch in sorted(parts, key=lambda part: part[:3])]


def _groups(prompts: Sequence[Prompt], options: RecordingOptions) -> Iterator[list[Prompt]]:
    """Yield groups of prompts of like length. The order of their lengths is random."""
    window = SORTED * options.lanes
    rng = random.Random(options.seed)
    for start in range(0, len(prompts), window):
        ordered = sorted(prompts[start : start + window], key=lambda prompt: len(prompt.tokens))
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
) -> list[Path | None]:
    """Answer and record each batch. A batch whose file is there is left as it is.

    Several processes share the batches. Each returns the files of all.

    Args:
        model: the model, in the type in which it shall compute.
        digest: of the model's weights.
        batches: what to record.
        directory: where the files go.
        options: how answers are made, and which states are kept.
        ends: the tokens that end an answer.
        advance: called with the number of batches that are done, and of the tokens of this process.
        minutes: after this time no batch is begun, but those that are needed: the held-out ones and one more.

    Returns:
        The file of each batch; None where the time did not suffice.

    Raises:
        HeadError: a file is damaged or cannot be written, or a state is not a finite number.
    """
    directory.mkdir(parents=True, exist_ok=True)
    config = model.config.get_text_config()
    rows: Any = model.get_input_embeddings()
    sizes = Sizes(len(rows.weight), len(options.taps) * config.hidden_size, config.hidden_size)
    shards = [(directory / f"{batch.name}.safetensors", _notes(batch, digest, options)) for batch in batches]
    tokens, trained, begin = 0, False, time.monotonic()
    for done, (batch, (file, notes)) in processes.share(enumerate(zip(batches, shards, strict=True))):
        if read_notes(file) != notes:
            if time.monotonic() - begin > 60 * minutes and not batch.greedy and trained:
                continue
            recordings = _record_batch(model, batch, options, ends)
            write_shard(file, recordings, notes)
        trained |= not batch.greedy
        tokens += sum(len(recording) for recording in read_shard(file, sizes))
        advance(done + 1, tokens)
    processes.wait()
    return [file if read_notes(file) == notes else None for file, notes in shards]


def _record_batch(
    model: PreTrainedModel, batch: Batch, options: RecordingOptions, ends: Sequence[int]
) -> list[Recording]:
    """Answer the prompts, then the later turns of those that have some. A conversation is recorded when it is over."""
    temperature = 0.0 if batch.greedy else options.temperature
    texts: dict[int, Answer] = {}
    prompts = {lane: list(prompt.tokens) for lane, prompt in enumerate(batch.prompts)}
    for turn in itertools.count():
        answers = answer(
            model,
            list(prompts.values()),
            count=options.answer_tokens,
            ends=ends,
            temperatures=[temperature * (lane % 2) for lane in prompts],
            seed=batch.seed + 7919 * turn,
            taps=options.taps,
        )
        texts |= dict(zip(prompts, answers, strict=True))
        later = {lane: batch.prompts[lane].later[turn] for lane in prompts if len(batch.prompts[lane].later) > turn}
        longer = {lane: [*_without_end(texts[lane].tokens, ends), *tokens] for lane, tokens in later.items()}
        prompts = {lane: tokens for lane, tokens in longer.items() if len(tokens) <= options.conversation_tokens}
        if not prompts:
            break
    return [
        Recording(tokens=torch.tensor(a.tokens), stored_states=a.states, stored_final=a.final, prompt=a.prompt)
        for a in texts.values()
    ]


def _without_end(tokens: list[int], ends: Sequence[int]) -> list[int]:
    return tokens[:-1] if tokens[-1] in ends else tokens


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


def _digest_of(prompts: Sequence[Prompt]) -> str:
    parts: list[object] = [[list(prompt.tokens) for prompt in prompts]]
    if any(prompt.later for prompt in prompts):
        parts.append([prompt.later for prompt in prompts])
    return hashlib.sha256("".join(map(repr, parts)).encode()).hexdigest()[:16]
