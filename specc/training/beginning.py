"""Where a head begins: in closed form, or with a head that was trained before."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from specc.heads import Head, HeadConfig, build_head, load_head
from specc.heads.files import WEIGHTS
from specc.runtime.errors import HeadError
from specc.training.course import Course
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.vocabulary import choose_vocabulary, coverage_of


def begin_anew(course: Course, teacher: Teacher, recordings: Sequence[Recording], size: int) -> tuple[Head, float]:
    """Build a head and set its weights in closed form.

    Args:
        course: how the architecture is trained.
        teacher: the model's tables.
        recordings: the text to train on.
        size: the number of tokens that the head knows, at most. A head inside the model knows all.

    Returns:
        The head, and the share of the text that its vocabulary has.
    """
    target = teacher.target
    size = target.vocab_size if course.in_model is not None else min(size, target.vocab_size)
    vocabulary, coverage = choose_vocabulary((text.tokens for text in recordings), size, target.vocab_size)
    head = build_head(config_of(course, teacher, size))
    if head.vocabulary is not None:
        head.vocabulary.copy_(vocabulary)
    head.attach(teacher.embedding, teacher.product)
    course.start(head, teacher, recordings)
    return head, coverage


def config_of(course: Course, teacher: Teacher, size: int) -> HeadConfig:
    """Return the configuration of a head that a course trains, which knows `size` tokens."""
    return HeadConfig(
        architecture=course.architecture,
        target=teacher.target,
        taps=course.taps(teacher.target.layers),
        draft_vocab_size=size,
        settings=course.settings(teacher.config),
    )


def begin_with(
    directory: Path, course: Course, teacher: Teacher, recordings: Sequence[Recording]
) -> tuple[Head, float]:
    """Load a head that is trained further. It keeps its vocabulary.

    Args:
        directory: of the head.
        course: how the architecture is trained.
        teacher: the model's tables.
        recordings: the text to train on.

    Returns:
        The head, and the share of the text that its vocabulary has.

    Raises:
        HeadError: the directory is no head of 'specc train', the head has another architecture or was trained for
            another model, it reads other layers than a training records, or its weights are not finite numbers.
    """
    head = load_fitting(directory, course, teacher)
    head.requires_grad_(True)
    head.attach(teacher.embedding, teacher.product)
    return head, coverage_of((text.tokens for text in recordings), head.vocabulary, teacher.target.vocab_size)


def load_fitting(directory: Path, course: Course, teacher: Teacher) -> Head:
    """Load a head that a training can go on with.

    Raises:
        HeadError: see `begin_with`.
    """
    head = load_head(directory)
    _check(head.config, directory, course, teacher)
    return head


def fingerprint(directory: Path) -> str:
    """Return 16 hexadecimal digits that tell a head by its weights."""
    return hashlib.sha256((directory / WEIGHTS).read_bytes()).hexdigest()[:16]


def _check(config: HeadConfig, directory: Path, course: Course, teacher: Teacher) -> None:
    """Refuse a head that this training cannot go on with."""
    if course.in_model is not None:
        raise HeadError(f"a {course.architecture} head is a part of the model's run: train it anew, without --head")
    if config.architecture != course.architecture:
        raise HeadError(
            f"{directory} is a head of {config.architecture}, and the recipe trains {course.architecture}; give a head "
            "of that architecture, or another --recipe"
        )
    if config.target.digest != teacher.target.digest:
        raise HeadError(
            f"{directory} was trained for {config.target.name}, whose embeddings are not those of "
            f"{teacher.target.name}; give a head of this model, or train without --head"
        )
    if config.taps != course.taps(teacher.target.layers):
        raise HeadError(
            f"{directory} reads the states after layers {_listed(config.taps)}, and a training records those after "
            f"{_listed(course.taps(teacher.target.layers))}; train without --head"
        )


def _listed(taps: Sequence[int]) -> str:
    return ", ".join(map(str, taps))
