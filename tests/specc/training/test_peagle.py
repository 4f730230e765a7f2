"""Depths that are trained together are the slots of one call."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, head, recordings

from specc.training.batches import collate
from specc.training.peagle import COURSE

pytestmark = pytest.mark.torch
STEPS = 4


def test_each_depth_has_the_logits_of_a_slot_without_a_token() -> None:
    module = head("peagle")
    batch = collate(recordings(2, "peagle", length=9))
    unrolled = [COURSE.product(module, k, rows) for k, rows in enumerate(COURSE.unroll(module, batch, STEPS))]
    states = module.fuse(batch.states[:, :-1].float())
    for root in range(batch.slots - STEPS):
        state = torch.cat([states[:1, : root + 1], torch.zeros(1, STEPS - 1, SIZE)], 1)
        tokens = torch.cat([batch.tokens[:1, 1 : root + 2], torch.full((1, STEPS - 1), 5)], 1)  # any tokens
        logits = module(tokens, torch.arange(root + STEPS)[None], state)["logits"]
        for depth in range(STEPS):
            torch.testing.assert_close(unrolled[depth][0, root + depth], logits[0, root + depth], atol=1e-4, rtol=1e-4)


def test_the_learned_state_is_trained() -> None:
    module = head("peagle").train()
    streams = COURSE.unroll(module, collate(recordings(2, "peagle")), 2)
    torch.autograd.backward(streams[1].sum())
    for name in ("pseudo_state", "pseudo_token"):
        gradient = module.get_parameter(name).grad
        assert gradient is not None and gradient.abs().max() > 0
