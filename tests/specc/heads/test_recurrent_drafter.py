"""The recurrence over drafted tokens."""

from __future__ import annotations

import pytest
import torch
from small_head import SIZE, head
from torch.nn.functional import embedding, silu

from specc.heads.head import rms_norm
from specc.heads.recurrent_drafter import RecurrentDrafter

pytestmark = pytest.mark.torch


def test_the_memory_holds_the_models_state_and_the_recurrence_written_out() -> None:
    module = head("recurrent_drafter")
    assert isinstance(module, RecurrentDrafter) and module.embedding is not None
    first = state = module.fuse(torch.randn(1, 1, SIZE))
    s = torch.zeros(module.previous.in_features)
    for token in (5, 6, 7):
        _, state = module.step(torch.tensor([[token]]), state)
        e = rms_norm(embedding(torch.tensor(token), module.embedding), None, module.eps)
        s = silu(module.input.weight @ e + module.input.bias + module.previous.weight @ s)
        flag, root, memory = state[0, 0, SIZE:].split([1, SIZE, len(s)])
        assert flag == 1
        assert torch.equal(root, first[0, 0, :SIZE])
        torch.testing.assert_close(memory, s)
