"""Adapters: they begin as nothing, learn alone, and end in the matrices."""

from __future__ import annotations

import pytest
import torch
from families import tiny
from torch import nn

from specc.runtime.errors import HeadError
from specc.training.adapters import add_adapters, merge_adapters
from specc.training.states import layers_of

pytestmark = pytest.mark.torch
TOKENS = torch.arange(1, 20)[None]


def test_a_model_with_adapters_begins_as_it_was_and_is_the_same_once_they_are_merged() -> None:
    model = tiny("llama")
    names, before = list(model.state_dict()), model(input_ids=TOKENS).logits
    adapters = add_adapters(layers_of(model), 1, 4)
    assert torch.equal(model(input_ids=TOKENS).logits, before)
    for name, parameter in adapters.named_parameters():
        if name.endswith("up"):
            torch.nn.init.normal_(parameter, std=0.1)
    changed = model(input_ids=TOKENS).logits
    assert not torch.allclose(changed, before, atol=1e-2)
    merge_adapters(layers_of(model))
    torch.testing.assert_close(model(input_ids=TOKENS).logits, changed, atol=1e-4, rtol=1e-4)
    assert list(model.state_dict()) == names


def test_the_products_of_the_top_layers_learn_alone() -> None:
    model = tiny("llama").requires_grad_(False)
    adapters = add_adapters(layers_of(model), 1, 4)
    assert {name.partition("/")[0] for name in adapters} == {str(i) for i in range(1, len(layers_of(model)))}
    learned = {name.rpartition(".")[2] for name, each in model.named_parameters() if each.requires_grad}
    assert learned == {"up", "down"}


def test_layers_without_linear_modules_are_refused() -> None:
    with pytest.raises(HeadError, match="the layers from 0 on have no linear modules to adapt; name another model"):
        add_adapters(nn.ModuleList([nn.LayerNorm(4)]), 0, 4)
