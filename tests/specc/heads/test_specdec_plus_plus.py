"""The head that foresees whether a drafted token is accepted."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_head import LAYERS, SIZE, VOCABULARY, config

from specc.heads import build_head
from specc.heads.specdec_plus_plus import AcceptanceHead
from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch
CHOICE = replace(config("medusa", VOCABULARY), architecture="specdec_plus_plus", taps=(LAYERS,), settings={"blocks": 2})


@torch.no_grad()
def test_its_state_is_one_number_of_the_draft_models_last_state() -> None:
    head = build_head(CHOICE)
    assert isinstance(head, AcceptanceHead) and head.reads == "assistant"
    assert head.state_size == 1 and not head.attends and not head.recurrent
    taps = torch.randn(1, 5, SIZE)
    state = head.fuse(taps)
    assert state.shape == (1, 5, 1)
    head.mean.fill_(2.0)
    head.scale.fill_(3.0)
    torch.testing.assert_close(head.fuse(3 * taps + 2), state)
    for block in head.blocks:
        for parameter in block.parameters():
            parameter.zero_()
    torch.testing.assert_close(head.fuse(3 * taps + 2), head.score(taps))  # Each block adds to what it reads.


def test_a_configuration_without_its_number_of_blocks_is_refused() -> None:
    with pytest.raises(HeadError, match="no setting 'blocks'"):
        build_head(replace(CHOICE, settings={}))
