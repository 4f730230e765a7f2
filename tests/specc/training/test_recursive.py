"""Recursive draft models that are made of a model."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graphs import model, tokens

from specc.huggingface.recursive import loops_of
from specc.runtime.errors import HeadError
from specc.training.cut import cut
from specc.training.recursive import best_product, share_layers

pytestmark = pytest.mark.torch


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma2", "phi"])
def test_it_begins_the_nearer_to_the_model_the_higher_the_rank_and_at_full_rank_as_the_model(family: str) -> None:
    whole: Any = model(family)
    before = {name: weight.clone() for name, weight in whole.state_dict().items()}
    right = whole(input_ids=tokens()).logits
    distances = []
    for rank in (1, 60, 96):
        draft: Any = share_layers(whole, 3, rank)
        distances.append(float((draft(input_ids=tokens()).logits - right).abs().mean()))
    assert distances[0] > distances[1] > distances[2] and distances[2] < 1e-3
    assert all(torch.equal(weight, before[name]) for name, weight in whole.state_dict().items())


@torch.no_grad()
def test_a_shared_matrix_is_the_mean_and_each_layer_adds_the_best_product_to_it() -> None:
    whole, draft = model("llama"), share_layers(model("llama"), 3, 4)
    matrices = [whole.get_parameter(f"model.layers.{index}.mlp.up_proj.weight") for index in range(3)]
    mean = sum(matrices) / 3
    for index, matrix in enumerate(matrices):
        layer = draft.get_submodule(f"model.layers.{index}.mlp.up_proj")
        assert layer.get_parameter("weight") is draft.get_parameter("model.layers.0.mlp.up_proj.weight")
        torch.testing.assert_close(layer.get_parameter("weight"), mean)
        own = layer.get_parameter("up") @ layer.get_parameter("down")
        lost = torch.linalg.svdvals(matrix - mean)[4:].square().sum()
        torch.testing.assert_close((matrix - mean - own).square().sum(), lost)


def test_both_factors_of_a_product_are_equally_large() -> None:
    up, down = best_product(torch.randn(9, 5, generator=torch.Generator().manual_seed(0)), 3)
    assert (up.shape, down.shape) == ((9, 3), (3, 5))
    torch.testing.assert_close(up.norm(dim=0), down.norm(dim=1))


def test_the_rank_is_a_16th_of_the_hidden_size_unless_another_is_given() -> None:
    draft = share_layers(model("llama"), 3)
    assert loops_of(draft) == 3 and draft.config.relaxed_recursive == {"loops": 3, "rank": 4}


@pytest.mark.parametrize(
    ("family", "loops", "rank", "message"),
    [
        ("llama", 2, 4, "3 layers cannot run in 2 loops; give one of 3"),
        ("llama", 3, 0, "the rank is 0; give 1 or more"),
        ("gpt2", 3, 4, "layers cannot share .*, which is no linear module; name another model"),
        ("mixtral", 3, 4, "layers cannot share mlp.*, which is no linear module; name another model"),
    ],
)
def test_what_cannot_be_shared_is_refused(family: str, loops: int, rank: int, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        share_layers(model(family), loops, rank)


def test_a_recursive_model_is_not_cut_and_not_shared_again() -> None:
    draft = share_layers(model("llama"), 3, 4)
    with pytest.raises(HeadError, match="name the model that it was made of"):
        cut(draft, [0])
    with pytest.raises(HeadError, match="which is no linear module"):
        share_layers(draft, 3, 4)
