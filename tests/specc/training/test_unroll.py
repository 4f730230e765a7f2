"""Training-time test: drafts that are unrolled together are those that the head makes one by one."""

from __future__ import annotations

import pytest
import torch
from small_head import head, recordings

from specc.training.batches import collate
from specc.training.courses import COURSES

pytestmark = pytest.mark.torch
STEPS = 4


@pytest.mark.parametrize("architecture", ["eagle3", "eagle", "mtp", "adaeagle", "fspad", "tandem"])
def test_each_depth_has_the_logits_of_a_draft_from_its_root(architecture: str) -> None:
    """Row i at depth k is slot i of a call whose last k slots stand on the head's own states."""
    module, course = head(architecture), COURSES[architecture]
    batch = collate(recordings(2, architecture, length=9))
    unrolled = [course.product(module, k, rows) for k, rows in enumerate(course.unroll(module, batch, STEPS))]
    states = module.fuse(batch.states[:, :-1].float())
    for lane in range(2):
        for root in range(batch.slots - STEPS):
            tokens, state = batch.tokens[lane : lane + 1, 1:], states[lane : lane + 1, : root + 1]
            for depth in range(STEPS):
                end = root + depth + 1
                result = module(tokens[:, :end], torch.arange(end)[None], state)
                truth = result["logits"][0, -1]
                limit = 1e-4 * float(truth.abs().max())  # A head without norms has large numbers at its depths.
                torch.testing.assert_close(unrolled[depth][lane, root + depth], truth, atol=limit, rtol=1e-4)
                state = torch.cat([state, result["state"][:, -1:]], 1)
