"""Heads inside a tiny model, with random weights, and text for them: what training runs is compared with the model."""

from __future__ import annotations

from functools import cache

import torch
from families import tiny
from torch import Tensor
from transformers import PreTrainedModel

from specc.heads import Head, HeadConfig, build_head
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.teacher import Teacher, teacher_of


@cache
def model() -> PreTrainedModel:
    """Return the model."""
    return tiny("llama")


@cache
def teacher() -> Teacher:
    """Return the model's facts and tables."""
    return teacher_of(model(), "tiny")


def bound(course: Course) -> Course:
    """Return a course for heads that run in the model."""
    assert course.in_model is not None
    return course.in_model(course, model())


def random_head(course: Course, taps: tuple[int, ...] | None = None) -> Head:
    """Return a new head of a course, whose weights are random.

    Args:
        course: the course.
        taps: the layers that it reads; None takes those of the course.
    """
    target = teacher().target
    torch.manual_seed(0)
    head = build_head(
        HeadConfig(
            architecture=course.architecture,
            target=target,
            taps=course.taps(target.layers) if taps is None else taps,
            draft_vocab_size=target.vocab_size,
            settings=course.settings(teacher().config),
        )
    )
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    head.attach(teacher().embedding, teacher().product)
    return head


def batch(tokens: Tensor) -> Batch:
    """Return texts [B, N] without states, of which each token counts."""
    states = torch.zeros(*tokens.shape, 1)
    return Batch(tokens=tokens, states=states, final=states, valid=torch.ones_like(tokens, dtype=torch.bool))
