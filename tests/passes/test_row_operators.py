"""Attention to rows that other blocks write."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from specc.passes import row_operators  # noqa: F401  registers the operators

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("rows", [0, 1, 3, 8])
def test_a_slot_sees_the_rows_in_use_before_its_position_and_one_at_least(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(1, 4, 3, 8, generator=generator)
    keys, values = (torch.randn(1, 2, 8, 8, generator=generator) for _ in range(2))
    out = torch.ops.specc.rows_attention(query, keys, values, torch.tensor([rows]), torch.tensor([[0, 2, 6]]), 0.5)
    for slot, position in enumerate((0, 2, 6)):
        count = max(1, min(rows, position))
        expected = scaled_dot_product_attention(
            query[:, :, slot : slot + 1], keys[:, :, :count], values[:, :, :count], scale=0.5, enable_gqa=True
        )
        torch.testing.assert_close(out[:, :, slot : slot + 1], expected)
