"""Draft models that are cut from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from specc.huggingface import load_model
from specc.runtime.errors import HeadError
from specc.training.cut import cut, kept_layers

pytestmark = pytest.mark.torch


def test_the_layers_that_stay_are_spread_and_the_first_is_one() -> None:
    assert kept_layers(12, 1) == [0]
    assert kept_layers(12, 2) == [0, 11]
    assert kept_layers(30, 4) == [0, 10, 19, 29]


@pytest.mark.parametrize("count", [0, 3])
def test_a_draft_has_fewer_layers_than_the_model(count: int) -> None:
    with pytest.raises(HeadError, match=rf"a draft of {count} layers cannot be cut from a model of 3; give 1\.\.2"):
        kept_layers(3, count)


@torch.no_grad()
def test_a_cut_runs_the_layers_that_stay(model: Path) -> None:
    whole: Any = load_model(str(model))
    draft: Any = cut(whole, [0, 2])
    ids = torch.arange(9)[None]
    assert draft.config.num_hidden_layers == 2 and draft.config.hidden_size == whole.config.hidden_size
    layers: Any = whole.get_submodule("model.layers")
    del layers[1]
    for index, layer in enumerate(layers):
        layer.self_attn.layer_idx = index
    torch.testing.assert_close(draft(input_ids=ids).logits, whole(input_ids=ids, use_cache=False).logits)
