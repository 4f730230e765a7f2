"""Sequential heads: what is unrolled together is what the head makes one by one, as the engines run it."""

from __future__ import annotations

import pytest
import torch
from small_head import head, recordings, teacher

from specc.heads.sequential import Sequential
from specc.training.acceptance import ranks
from specc.training.batches import collate
from specc.training.course import Course
from specc.training.courses import COURSES

pytestmark = pytest.mark.torch
STEPS = 4
NAMES = ("hydra", "hydra-plus-plus", "recurrent-drafter", "clover", "clover-2")
SEQUENTIAL = pytest.mark.parametrize("course", [COURSES[name] for name in NAMES], ids=NAMES)


@SEQUENTIAL
@torch.no_grad()
def test_each_depth_has_the_logits_of_a_draft_from_its_root(course: Course) -> None:
    """The root runs `forward` after all tokens before it. Drafts run `step` alone: their layers are left out."""
    module = head(course.architecture)
    assert isinstance(module, Sequential)
    batch = collate(recordings(2, course.architecture, length=9))
    unrolled = [course.product(module, depth, rows) for depth, rows in enumerate(course.unroll(module, batch, STEPS))]
    states = module.fuse(batch.states[:, :-1].float())
    for lane in range(2):
        tokens = batch.tokens[lane : lane + 1, 1:]
        roots = module(tokens, torch.arange(batch.slots)[None], states[lane : lane + 1])
        torch.testing.assert_close(unrolled[0][lane], roots["logits"][0], atol=1e-4, rtol=1e-4)
        for root in range(batch.slots - STEPS):
            state = roots["state"][:, root : root + 1]
            for depth in range(1, STEPS):
                x, state = module.step(tokens[:, root + depth : root + depth + 1], state)
                torch.testing.assert_close(
                    unrolled[depth][lane, root + depth], module.logits(x)[0, 0], atol=1e-4, rtol=1e-4
                )


@SEQUENTIAL
def test_the_closed_form_already_drafts_well(course: Course) -> None:
    module, texts = head(course.architecture), recordings(40, course.architecture)
    course.start(module, teacher(), texts)
    for text in ranks(module, course, recordings(4, course.architecture, seed=9), 3):
        assert (text[:, :-3] == 0).mean() > 0.95
