"""Guesses of one state: each learns the token so many behind the next one."""

from __future__ import annotations

import pytest
import torch
from small_head import SETTINGS, head, recordings, teacher
from torch import nn

from specc.heads.stacked import Stacked
from specc.training.acceptance import ranks
from specc.training.batches import collate
from specc.training.course import Course
from specc.training.courses import COURSES

pytestmark = pytest.mark.torch
STACKED = pytest.mark.parametrize(
    "course",
    [
        course
        for course in COURSES.values()
        if course.architecture in SETTINGS and isinstance(head(course.architecture), Stacked)
    ],
    ids=lambda course: course.architecture,
)


@STACKED
def test_depth_k_reads_the_state_k_rows_before(course: Course) -> None:
    module, name = head(course.architecture), course.architecture
    batch = collate(recordings(2, name, length=9))
    for depth, rows in enumerate(course.unroll(module, batch, 3)):
        for lane in range(2):
            state = module.fuse(batch.states[lane : lane + 1, :-1].float())
            truth = module(batch.tokens[lane : lane + 1, 1:], torch.arange(batch.slots)[None], state)["logits"][0]
            logits = course.product(module, depth, rows)[lane]
            torch.testing.assert_close(logits[depth:], truth[: batch.slots - depth, depth], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("course", [COURSES["medusa"], COURSES["blockwise"]], ids=lambda course: course.architecture)
def test_it_starts_as_the_model_guesses_its_own_last_token(course: Course) -> None:
    """Where nothing is added to the state, each guess is what the model said of the token before."""
    module, texts = head(course.architecture), recordings(8, course.architecture)
    assert isinstance(module, Stacked)
    for parameter in module.added():
        nn.init.zeros_(parameter)
    course.start(module, teacher(), texts)
    batch = collate(texts[:1])
    (rows, *_) = course.unroll(module, batch, 1)
    assert module.vocabulary is not None
    choice = module.vocabulary[course.product(module, 0, rows).argmax(-1)]
    assert (choice == batch.tokens[:, 1:]).float().mean() > 0.9


def test_amphistas_slots_start_as_the_linear_guess_of_the_next_state() -> None:
    course = COURSES["amphista"]
    module, texts = head("amphista"), recordings(40, "amphista")
    course.start(module, teacher(), texts)
    (ranked,) = ranks(module, course, recordings(1, "amphista", seed=9), 3)
    first, *later = ranked[:, :-3]
    assert (first == 0).mean() > 0.95
    assert all((depth == 0).mean() < 0.5 for depth in later)  # All slots say the same until they are trained.
