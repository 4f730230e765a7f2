"""Two tokens a call: what is unrolled together is what the head makes call by call."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, head, recordings

from specc.training.batches import collate
from specc.training.falcon import COURSE

pytestmark = pytest.mark.torch
STEPS = 4


def test_each_depth_has_the_logits_of_a_draft_from_its_root() -> None:
    module = head("falcon")
    batch = collate(recordings(2, "falcon", length=9))
    unrolled = [COURSE.product(module, k, rows) for k, rows in enumerate(COURSE.unroll(module, batch, STEPS))]
    states = module.fuse(batch.states[:, :-1].float())
    for root in range(batch.slots - STEPS):
        tokens, state = batch.tokens[:1, 1:], states[:1, : root + 1]
        for depth in (0, 2):
            end = root + depth + 1
            result = module(tokens[:, :end], torch.arange(end)[None], state)
            for part in (0, 1):
                ours, theirs = unrolled[depth + part][0, root + depth + part], result["logits"][0, -1, part]
                limit = 1e-4 * float(theirs.abs().max())  # A head without norms has large numbers at its depths.
                torch.testing.assert_close(ours, theirs, atol=limit, rtol=1e-4)
            pair = torch.nn.functional.pad(result["state"][:, -1].unflatten(-1, (2, SIZE)), (0, SIZE))
            state = torch.cat([state, pair], 1)
