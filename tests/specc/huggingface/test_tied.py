"""Tensors of several names."""

from __future__ import annotations

import pytest
import torch

from specc.huggingface.tied import first_names

pytestmark = pytest.mark.torch


def test_a_tensor_has_its_first_name_and_a_part_or_an_equal_one_is_another() -> None:
    table = torch.ones(4, 2)
    tensors = {"a": table, "b": table, "part": table[:2], "turned": table.view(2, 4), "equal": table.clone()}
    assert first_names(tensors) == {"a": "a", "b": "a", "part": "part", "turned": "turned", "equal": "equal"}
