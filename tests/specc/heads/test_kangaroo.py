"""The adapter behind an early exit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_head import LAYER, SIZE, VOCABULARY, config, tables

from specc.heads import build_head
from specc.heads.head import rms_norm
from specc.heads.kangaroo import Kangaroo
from specc.training.unroll import DraftAttention

pytestmark = pytest.mark.torch
CHOICE = replace(config("medusa", VOCABULARY), architecture="kangaroo", taps=(1,), settings=LAYER | {"mlp_size": 0})


@torch.no_grad()
def test_it_is_one_attention_layer_between_two_norms_and_reads_no_token() -> None:
    torch.manual_seed(0)
    head = build_head(CHOICE)
    assert isinstance(head, Kangaroo) and not head.recurrent and head.attends and head.state_size == SIZE
    head.attach(tables())
    (layer,) = head.decoder_layers()
    assert not [name for name, _ in head.named_parameters() if "mlp" in name or "gate" in name or "down" in name]
    states, positions = torch.randn(1, 5, SIZE), torch.arange(5)[None]
    normed = rms_norm(states, None, head.eps)
    torch.testing.assert_close(head.fuse(states), normed)
    streams = [head.run_layers(torch.full((1, 5), token), positions, states, [DraftAttention()]) for token in (0, 7)]
    torch.testing.assert_close(*streams)
    assert not torch.allclose(streams[0], normed)
    again = head.run_layers(torch.zeros(1, 5, dtype=torch.long), positions, normed, [DraftAttention()])
    torch.testing.assert_close(again, streams[0])  # It reads a state or its norm.
    layer.output.weight.zero_()
    stream = head.run_layers(torch.zeros(1, 5, dtype=torch.long), positions, states, [DraftAttention()])
    torch.testing.assert_close(stream, normed)  # Without its attention it is the exit.
    assert head.norm is not None
    torch.testing.assert_close(head.logits(stream), rms_norm(states, head.norm, head.eps) @ tables().T)
