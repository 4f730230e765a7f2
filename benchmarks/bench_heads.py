"""Train each kind of head for equal time on one recording, and print what it reaches on held-out text.

    python benchmarks/bench_heads.py MODEL --data FILE --work DIR [--seconds 60] [RECIPE ...]

The time is that of the CPU, so that other programs on the machine do not count. Recordings stay in the folder `--work`,
and so do the results, one file a recipe: a run that is started again goes on with the recipes that are missing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from specc.heads import HeadConfig, build_head
from specc.huggingface import load_model, load_tokenizer
from specc.runtime.json_codec import to_json
from specc.training.acceptance import measure
from specc.training.course import Course
from specc.training.courses import COURSES
from specc.training.distillation import Distillation
from specc.training.precision import fast_type
from specc.training.prompts import read_prompts
from specc.training.record import HELD_OUT, RecordingOptions, batches, record
from specc.training.shards import Recording, read_shard
from specc.training.teacher import Teacher, teacher_of
from specc.training.trainer import Trainer, TrainerOptions
from specc.training.vocabulary import choose_vocabulary

DEPTHS = 4


def main() -> None:
    """Train each kind of head, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("recipes", nargs="*", help="default: all that can be trained")
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="of the CPU, for the updates of each head")
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--answer-tokens", type=int, default=48)
    options = parser.parse_args()
    torch.set_num_threads(1)
    names = options.recipes or list(COURSES)
    count = _layers(options.model)
    layers = sorted({tap for name in COURSES for tap in COURSES[name].taps(count)})
    recording = RecordingOptions(
        taps=(
            *[layer for layer in layers if 0 <= layer < count],
            -1,
        ),  # The state behind the final norm is there anyway.
        prompts=options.prompts,
        answer_tokens=options.answer_tokens,
    )
    teacher, texts, held_out = _record(options.model, options.data, options.work, recording)
    time.monotonic = time.process_time  # The clock of the loop.
    for name in names:
        file = options.work / f"{name}.json"
        if not file.exists():
            file.write_text(json.dumps(_train(name, teacher, recording.taps, texts, held_out, options)) + "\n")
        figures = json.loads(file.read_text())
        depths = ", ".join(f"{rate:.1%}" for rate in figures["acceptance"]["by_depth"])
        print(
            f"| `{name}` | {figures['parameters'] / 1e6:.2f} | {figures['updates']} | {depths} | "
            f"{figures['acceptance']['chain']:.2f} | {figures['acceptance']['tree']:.2f} |",
            flush=True,
        )


def _layers(model: str) -> int:
    layers: int = load_model(model).config.get_text_config().num_hidden_layers
    return layers


def _record(
    source: str, data: Sequence[Path], work: Path, options: RecordingOptions
) -> tuple[Teacher, list[Recording], list[Recording]]:
    """Return the model's tables, the text to train on and the held-out text, with the states of all taps."""
    work.mkdir(parents=True, exist_ok=True)
    model = load_model(source)
    teacher = teacher_of(model, Path(source).name)
    prompts = read_prompts(
        data, load_tokenizer(source), count=options.prompts, longest=options.prompt_tokens, seed=options.seed
    )
    model.to(fast_type())  # type: ignore[arg-type]  # transformers' types demand a device here
    ends = [model.config.eos_token_id] if isinstance(model.config.eos_token_id, int) else []
    files = record(model, teacher.target.digest, batches(prompts, options), work, options, ends)
    parts: dict[bool, list[Recording]] = {True: [], False: []}
    for file in filter(None, files):
        parts[file.name.startswith(HELD_OUT)] += read_shard(file)
    return teacher, parts[False], parts[True]


def _train(
    name: str,
    teacher: Teacher,
    taps: Sequence[int],
    texts: Sequence[Recording],
    held_out: Sequence[Recording],
    options: argparse.Namespace,
) -> dict[str, object]:
    """Train the head of one recipe, and return its figures."""
    course = COURSES[name]
    torch.manual_seed(0)
    ours, theirs = (_with_taps(part, taps, course, teacher) for part in (texts, held_out))
    vocabulary, _ = choose_vocabulary((text.tokens for text in ours), 8192, teacher.target.vocab_size)
    config = HeadConfig(
        architecture=course.architecture,
        target=teacher.target,
        taps=course.taps(teacher.target.layers),
        draft_vocab_size=len(vocabulary),
        settings=course.settings(teacher.config),
    )
    head = build_head(config)
    if head.vocabulary is not None:
        head.vocabulary.copy_(vocabulary)
    head.attach(teacher.embedding, teacher.product)
    course.start(head, teacher, ours)
    loop = TrainerOptions(minutes=options.seconds / 60, evaluations=4, every=1e9, kind=fast_type())
    checkpoint = options.work / f"{name}.safetensors"
    progress = Trainer(head, course, Distillation(teacher, head.vocabulary), loop, checkpoint, {}).run(
        ours, {"held out": theirs}
    )
    return {
        "parameters": sum(parameter.numel() for parameter in head.parameters()),
        "updates": progress.updates,
        "seconds": progress.seconds,
        "recorded": sum(map(len, texts)),
        "held_out": sum(map(len, held_out)),
        "progress": progress.acceptances,
        "acceptance": to_json(measure(head, course, theirs, DEPTHS)),
    }


def _with_taps(texts: Sequence[Recording], taps: Sequence[int], course: Course, teacher: Teacher) -> list[Recording]:
    """Return recordings with the states of a course's taps alone."""
    size, layers = teacher.target.hidden_size, teacher.target.layers

    def states(text: Recording, tap: int) -> torch.Tensor:
        start = list(taps).index(tap) * size if tap < layers else 0
        return text.final if tap == layers else text.states[:, start : start + size]

    return [
        dataclasses.replace(text, states=torch.cat([states(text, tap) for tap in course.taps(layers)], 1))
        for text in texts
    ]


if __name__ == "__main__":
    main()
