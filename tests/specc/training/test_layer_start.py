"""Attention that starts from a layer of the model looks where that layer looks."""

from __future__ import annotations

import pytest
import torch
from families import tiny
from torch import Tensor, nn
from transformers import PreTrainedModel

from specc.heads import HeadConfig, Target
from specc.heads.head import rms_norm
from specc.heads.layer import rotate
from specc.heads.tandem import TandemLayer
from specc.training.eagle3 import layer_settings
from specc.training.glide import model_rows
from specc.training.layer_start import copy_products, has_query, layer_weights, least_squares, queries_of
from specc.training.states import tapped

pytestmark = pytest.mark.torch
TAP = 1  # The layer behind it is the one that the head starts from.
TOKENS = torch.randint(100, (1, 12), generator=torch.Generator().manual_seed(0))


def _layer(model: PreTrainedModel) -> TandemLayer:
    config = model.config.get_text_config()
    target = Target(name="tiny", digest="", hidden_size=config.hidden_size, vocab_size=config.vocab_size, layers=3)
    settings = layer_settings(config) | {"bias": float(hasattr(config, "attention_bias") and config.attention_bias)}
    choice = HeadConfig(
        architecture="tandem", target=target, taps=(TAP,), draft_vocab_size=config.vocab_size, settings=settings
    )
    return TandemLayer(choice, 0)


@torch.no_grad()
def _states(model: PreTrainedModel) -> Tensor:
    with tapped(model, (TAP,)) as values:
        model(input_ids=TOKENS)
    states: Tensor = values[TAP]
    return states


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_keys_and_values_of_copied_products_are_the_models_own(family: str) -> None:
    """Gemma's norms have weights that start at zero, to which the model adds one."""
    model = tiny(family)
    layer, weights = _layer(model), layer_weights(model, TAP + 1)
    copy_products(layer, weights, ("key", "value"))
    read = rms_norm(_states(model), weights["norm"], layer.eps)
    turned: list[Tensor] = []

    def keep(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        turned.extend((key, value))
        return query

    layer.after_attention(read, read, read, torch.arange(TOKENS.shape[1])[None], keep)
    for ours, theirs in zip(turned, model_rows(model, TOKENS, TAP + 1), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_query_of_a_token_that_stands_elsewhere_is_turned_by_the_distance() -> None:
    model = tiny("llama")
    layer, weights, states = _layer(model), layer_weights(model, TAP + 1), _states(model)[0]
    ours, theirs = (queries_of(layer, weights, states, later) for later in (1, 0))
    places = torch.arange(len(states))[None]

    def turn(rows: Tensor, positions: Tensor) -> Tensor:
        return rotate(torch.unflatten(rows, -1, (-1, layer.head_size))[None].transpose(1, 2), *layer.angles(positions))

    torch.testing.assert_close(turn(ours, places), turn(theirs, places + 1), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(turn(ours, places), turn(theirs, places), atol=1e-2)


def test_a_layer_whose_products_have_other_names_leaves_a_head_as_it_is() -> None:
    weights = layer_weights(tiny("gpt_neox"), 0)
    layer = _layer(tiny("llama"))
    before = layer.key.weight.clone()  # type: ignore[operator]
    copy_products(layer, weights, ("key", "value"))
    assert not has_query(weights) and torch.equal(before, layer.key.weight)  # type: ignore[arg-type]


def test_products_of_another_shape_stay_as_they_are() -> None:
    layer = nn.ModuleDict({"key": nn.Linear(3, 2)})
    before = layer["key"].weight.clone()  # type: ignore[operator]
    copy_products(layer, {"key.weight": torch.ones(4, 4), "key.bias": torch.ones(2)}, ("key",))
    assert torch.equal(before, layer["key"].weight)  # type: ignore[arg-type]
    assert torch.equal(layer["key"].bias, torch.ones(2))  # type: ignore[arg-type]


def test_least_squares_finds_a_product_that_made_all_rows() -> None:
    product = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    rows = [torch.randn(50, 6, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    solution = least_squares(rows, [x @ product.T for x in rows])
    torch.testing.assert_close(solution, product, atol=0.02, rtol=0.02)
