"""Recorded text of the demo model, and heads that are trained on it in a minute each.

The model was trained on the files that the prompts come from.
"""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from specc.heads import Head, HeadConfig, build_head
from specc.huggingface import load_model, load_tokenizer
from specc.training.checkpoint import Progress
from specc.training.course import Course
from specc.training.distillation import Distillation
from specc.training.prompts import read_prompts
from specc.training.record import HELD_OUT, RecordingOptions, batches, record
from specc.training.shards import Recording, read_shard
from specc.training.teacher import Teacher, teacher_of
from specc.training.trainer import Trainer, TrainerOptions

DEMO = Path(__file__).parents[1] / "examples" / "pycode-10m"
FILES = ("argparse.py", "ast.py", "calendar.py", "difflib.py", "inspect.py", "optparse.py", "tarfile.py", "typing.py")
TAPS = (1, 2, 3, 5, 7, 9, -1)  # layers whose states are recorded


@dataclass(frozen=True)
class Text:
    """Recorded text of the demo model.

    Attributes:
        teacher: the model's tables.
        train: text to train on, with the states after TAPS.
        held_out: text to measure on.
        directory: where trainings keep their checkpoints.
    """

    teacher: Teacher
    train: list[Recording]
    held_out: list[Recording]
    directory: Path

    def of(self, course: Course) -> Text:
        """Return the text with the states that a course reads."""
        # Without taps nothing is read, and the last states stay, since a recording has some.
        taps, size = course.taps(self.teacher.target.layers) or (-1,), self.teacher.target.hidden_size

        def with_taps(one: Recording) -> Recording:
            states = dict(zip(TAPS, torch.split(one.states, size, -1), strict=True)) | {
                self.teacher.target.layers: one.final
            }
            return replace(one, stored_states=torch.cat([states[tap] for tap in taps], -1))

        return replace(
            self, train=[with_taps(one) for one in self.train], held_out=[with_taps(one) for one in self.held_out]
        )


def record_text(directory: Path) -> Text:
    """Let the demo model continue files of the standard library, and record its states."""
    source = directory / "stdlib.txt"
    stdlib = Path(sysconfig.get_path("stdlib"))
    source.write_text("\n".join((stdlib / file).read_text("utf-8") for file in FILES), "utf-8")
    model = load_model(str(DEMO))
    teacher = teacher_of(model, "demo")
    options = RecordingOptions(taps=TAPS, prompts=240, answer_tokens=48, held_out=48)
    prompts = read_prompts([source], load_tokenizer(str(DEMO)), count=240, longest=320, seed=0)
    files = record(model, teacher.target.digest, batches(prompts, options), directory, options, [0])
    parts: dict[bool, list[Recording]] = {True: [], False: []}
    for file in filter(None, files):
        parts[file.name.startswith(HELD_OUT)] += read_shard(file)
    return Text(teacher, parts[False], parts[True], directory)


def train_head(
    text: Text, course: Course, name: str, options: TrainerOptions, **settings: float
) -> tuple[Head, Progress]:
    """Train a head.

    Args:
        text: what `Text.of` returned for the course.
        course: how the head is trained.
        name: of the checkpoint.
        options: of the loop.
        **settings: settings of the architecture that differ from the course's.
    """
    torch.manual_seed(0)
    teacher, target = text.teacher, text.teacher.target
    config = HeadConfig(
        architecture=course.architecture,
        target=target,
        taps=course.taps(target.layers),
        draft_vocab_size=target.vocab_size,
        settings={**course.settings(teacher.config), **settings},
    )
    head = build_head(config)
    head.attach(teacher.embedding, teacher.product)
    course.start(head, teacher, text.train)
    notes: dict[str, Any] = {}
    trainer = Trainer(head, course, Distillation(teacher, None), options, text.directory / f"{name}.safetensors", notes)
    return head, trainer.run(text.train, {"demo": text.held_out})
