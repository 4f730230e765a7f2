"""Attention of lanes: what it gives is what the operator gives."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AttentionInterface

from specc.passes import operators  # noqa: F401  registers specc::attention
from specc.training.lane_attention import ATTENTION, BLOCK

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(("softcap", "has_sinks"), [(0.0, False), (2.0, False), (0.0, True), (2.0, True)])
def test_caps_and_sinks_are_those_of_the_operator(softcap: float, has_sinks: bool) -> None:
    query, key, value = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8)
    sinks = torch.randn(4) if has_sinks else None
    truth = torch.ops.specc.attention(query, key, value, sinks, 0.5, 0, softcap, 0).transpose(1, 2)
    attend = AttentionInterface()[ATTENTION]
    module = nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]  # torch's attention in transformers reads it
    visible = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    for mask, slots in ((visible, slice(0, 6)), (None, slice(0, 6)), (visible[:, :, 5:], slice(5, 6))):
        out, _ = attend(module, query[:, :, slots], key, value, mask, scaling=0.5, softcap=softcap or None, s_aux=sinks)
        torch.testing.assert_close(out, truth[:, slots])


@pytest.mark.parametrize("slots", [1, 3])
def test_rows_that_no_lane_sees_are_not_read(slots: int) -> None:
    """Whole blocks of rows are read. Behind the last block that some lane sees part of, rows may hold anything."""
    visible_rows, rows = BLOCK + 6, 3 * BLOCK
    query, key, value = torch.randn(2, 4, slots, 8), torch.randn(2, 2, rows, 8), torch.randn(2, 2, rows, 8)
    key[:, :, 2 * BLOCK :], value[:, :, 2 * BLOCK :] = torch.nan, torch.nan
    visible = torch.ones(slots, rows, dtype=torch.bool).tril(visible_rows - slots).expand(2, 1, slots, rows)
    module = nn.Module()
    module.num_key_value_groups = 2  # type: ignore[assignment]  # torch's attention in transformers reads it
    out, _ = AttentionInterface()[ATTENTION](module, query, key, value, visible, scaling=0.5)
    keys, values = (x[:, :, :visible_rows].repeat_interleave(2, 1) for x in (key, value))
    truth = nn.functional.scaled_dot_product_attention(query, keys, values, visible[..., :visible_rows], scale=0.5)
    torch.testing.assert_close(out, truth.transpose(1, 2))
