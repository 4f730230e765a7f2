"""Training-time test: drafts that are unrolled together are those that the head makes one by one."""

from __future__ import annotations

import pytest
import torch
from small_head import head, recordings, teacher

from specc.heads.eagle3 import Eagle3
from specc.training.acceptance import ranks
from specc.training.batches import collate
from specc.training.eagle3 import COURSE

pytestmark = pytest.mark.torch
STEPS = 4


def test_each_depth_has_the_logits_of_a_draft_from_its_root() -> None:
    """Row i at depth k is slot i of a call whose last k slots stand on the head's own states."""
    module = head("eagle3")
    assert isinstance(module, Eagle3)
    batch = collate(recordings(2, length=9))
    unrolled = [module.logits(rows) for rows in COURSE.unroll(module, batch, STEPS)]
    states = module.fuse(batch.states[:, :-1].float())
    for lane in range(2):
        for root in range(batch.slots - STEPS):
            tokens, state = batch.tokens[lane : lane + 1, 1:], states[lane : lane + 1, : root + 1]
            for depth in range(STEPS):
                end = root + depth + 1
                result = module(tokens[:, :end], torch.arange(end)[None], state)
                torch.testing.assert_close(
                    unrolled[depth][lane, root + depth], result["logits"][0, -1], atol=1e-4, rtol=1e-4
                )
                state = torch.cat([state, result["state"][:, -1:]], 1)


def test_the_closed_form_already_drafts_well() -> None:
    """The toy's next state is a linear function of the token, so the start alone finds it at every depth."""
    module, texts = head("eagle3"), recordings(40)
    COURSE.start(module, teacher(), texts)
    for text in ranks(module, COURSE, recordings(4, seed=9), 3):
        assert (text[:, :-3] == 0).mean() > 0.95


def test_a_random_head_does_not() -> None:
    """The control of the test above."""
    right = [(text[0] == 0).mean() for text in ranks(head("eagle3"), COURSE, recordings(4, seed=9), 3)]
    assert max(right) < 0.6


@pytest.mark.parametrize(("layers", "taps"), [(30, (2, 14, -1)), (12, (2, 5, -1)), (2, (0, -1)), (1, (-1,))])
def test_taps_are_an_early_layer_a_middle_one_and_the_last(layers: int, taps: tuple[int, ...]) -> None:
    assert COURSE.taps(layers) == taps
