"""The papers' own claims, on the demo model: heads of decoder layers, trained for a minute each on one recording."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from specc.heads import Head, HeadConfig, build_head
from specc.heads.adaeagle import AdaEagle
from specc.huggingface import load_model, load_tokenizer
from specc.training.acceptance import CHAIN, Acceptance, measure
from specc.training.adaeagle import accepted_lengths
from specc.training.batches import collate
from specc.training.course import Course
from specc.training.courses import COURSES
from specc.training.distillation import Distillation
from specc.training.prompts import read_prompts
from specc.training.record import HELD_OUT, RecordingOptions, batches, record
from specc.training.shards import Recording, read_shard
from specc.training.teacher import Teacher, teacher_of
from specc.training.trainer import Trainer, TrainerOptions

pytestmark = [pytest.mark.torch, pytest.mark.slow]
DEMO = Path(__file__).parents[1] / "examples" / "pycode-10m"
FILES = ("argparse.py", "ast.py", "calendar.py", "difflib.py", "inspect.py", "optparse.py", "tarfile.py", "typing.py")
TAPS, FINAL = (2, 5, -1), 12
UPDATES = 120


@dataclass(frozen=True)
class Text:
    """Recorded text of the demo model, with the states after TAPS."""

    teacher: Teacher
    train: list[Recording]
    held_out: list[Recording]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Text:
    directory = tmp_path_factory.mktemp("record")
    source = directory / "stdlib.txt"
    source.write_text("\n".join((Path(sysconfig.get_path("stdlib")) / file).read_text("utf-8") for file in FILES))
    model = load_model(str(DEMO))
    teacher = teacher_of(model, "demo")
    options = RecordingOptions(taps=TAPS, prompts=240, answer_tokens=48, held_out=48)
    prompts = read_prompts([source], load_tokenizer(str(DEMO)), count=240, longest=320, seed=0)
    files = record(model, teacher.target.digest, batches(prompts, options), directory, options, [0])
    parts: dict[bool, list[Recording]] = {True: [], False: []}
    for file in filter(None, files):
        parts[file.name.startswith(HELD_OUT)] += read_shard(file)
    return Text(teacher, parts[False], parts[True])


@pytest.fixture(scope="module")
def trained(text: Text, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Head, Acceptance, float]]:
    """A function that trains the head of a recipe once, and returns it, its acceptance, and its chain untrained."""
    directory = tmp_path_factory.mktemp("heads")

    @cache
    def train(name: str) -> tuple[Head, Acceptance, float]:
        torch.manual_seed(0)
        course, target = COURSES[name], text.teacher.target
        settings = course.settings(text.teacher.config)
        head = build_head(
            HeadConfig(
                architecture=course.architecture,
                target=target,
                taps=course.taps(target.layers),
                draft_vocab_size=target.vocab_size,
                settings=settings,
            )
        )
        head.attach(text.teacher.embedding, text.teacher.product)
        ours, theirs = recordings(text.train, course), recordings(text.held_out, course)
        course.start(head, text.teacher, ours)
        options = TrainerOptions(updates=UPDATES, evaluations=3, every=1e9)
        loss = Distillation(text.teacher, None)
        progress = Trainer(head, course, loss, options, directory / f"{name}.safetensors", {}).run(
            ours, {"demo": theirs}
        )
        return head, measure(head, course, theirs, CHAIN), progress.acceptances["0"]

    return train


def recordings(texts: list[Recording], course: Course) -> list[Recording]:
    """Return recordings with what a course reads: the states of all taps, or those behind the final norm."""
    if course.taps(FINAL) == (FINAL,):
        return [replace(one, states=one.final) for one in texts]
    assert course.taps(FINAL) == TAPS
    return texts


@pytest.mark.parametrize("name", ["eagle", "mtp", "peagle", "falcon"])
def test_training_makes_more_tokens_a_step_than_the_closed_form(
    name: str, trained: Callable[[str], tuple[Head, Acceptance, float]]
) -> None:
    _, acceptance, before = trained(name)
    assert acceptance.chain > before + 0.02


def test_a_tree_takes_more_than_a_chain(trained: Callable[[str], tuple[Head, Acceptance, float]]) -> None:
    """EAGLE-2's claim over EAGLE's chain."""
    _, acceptance, _ = trained("eagle")
    assert acceptance.tree > acceptance.chain


def test_fspad_takes_no_fewer_tokens_than_eagle(trained: Callable[[str], tuple[Head, Acceptance, float]]) -> None:
    assert trained("fspad")[1].chain >= trained("eagle")[1].chain


@torch.no_grad()
def test_guessed_lengths_are_nearer_than_the_best_fixed_one(
    text: Text, trained: Callable[[str], tuple[Head, Acceptance, float]]
) -> None:
    head, *_ = trained("adaeagle")
    assert isinstance(head, AdaEagle)
    truths: list[Tensor] = []
    guesses: list[Tensor] = []
    for one in text.held_out:
        batch = collate([one])
        truth = accepted_lengths(head, batch, COURSES["adaeagle"].unroll(head, batch, CHAIN))
        roots = truth.shape[1]
        lengths = head.lengths(batch.tokens[:, 1 : 1 + roots], head.fuse(batch.states[:, :roots].float()))
        truths.append(truth[0, one.prompt :])
        guesses.append(lengths[0, one.prompt :, 0].round().clamp(0, CHAIN))
    truth, guess = torch.cat(truths).float(), torch.cat(guesses)
    fixed = min(float((truth - length).abs().mean()) for length in range(CHAIN + 1))
    assert float((truth - guess).abs().mean()) < fixed
    wasted, wasted_by_all = (guess - truth).clamp(min=0).mean(), (CHAIN - truth).mean()
    assert wasted < 0.7 * wasted_by_all
