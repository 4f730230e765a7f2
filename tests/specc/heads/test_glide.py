"""GliDe's layer: which rows of the model a slot sees."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_head import LAYER, LAYERS, VOCABULARY, head
from torch import Tensor

from specc.heads.glide import Glide

pytestmark = pytest.mark.torch
ROWS, SLOTS = 12, 5


def _module() -> Glide:
    module = head("glide", VOCABULARY)
    assert isinstance(module, Glide)
    return module


def _rows() -> tuple[Tensor, Tensor]:
    shape, generator = (1, int(LAYER["key_heads"]), ROWS, int(LAYER["head_size"])), torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def _logits(module: Glide, count: int, keys: Tensor, values: Tensor) -> Tensor:
    tokens = torch.tensor([[3, 1, 4, 1, 5]])
    return module.draft(tokens, torch.arange(SLOTS)[None], torch.tensor([count]), keys, values)


@pytest.mark.parametrize(("row", "changed"), [(0, [0, 1, 2, 3, 4]), (1, [2, 3, 4]), (2, [3, 4]), (3, []), (7, [])])
def test_a_slot_sees_the_rows_in_use_before_its_position(row: int, changed: list[int]) -> None:
    """Three rows are in use. The first one is seen by all slots, so that each sees one."""
    module, (keys, values) = _module(), _rows()
    before = _logits(module, 3, keys, values)
    values[:, :, row] += 1
    difference = (_logits(module, 3, keys, values) - before).abs().amax(-1)[0]
    assert (difference > 1e-6).nonzero().flatten().tolist() == changed


def test_rows_with_wider_heads_that_zeros_fill_give_the_same_logits() -> None:
    module, (keys, values) = _module(), _rows()
    wide = [torch.nn.functional.pad(x, (0, 8)) for x in (keys, values)]
    torch.testing.assert_close(_logits(module, 4, *wide), _logits(module, 4, keys, values))


def test_it_reads_the_last_layer_or_the_one_of_its_settings_and_keeps_its_rows_behind_all() -> None:
    module = _module()
    assert (module.read_layer, module.layer.index, module.taps) == (LAYERS - 1, LAYERS, ())
    assert Glide(replace(module.config, settings=LAYER | {"read_layer": 1})).read_layer == 1
