"""Heads of EAGLE's authors give what their papers' architectures compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published_heads import (
    CONFIG,
    HEAD_SIZE,
    KNOWN,
    LAYERS,
    SIZE,
    THETA,
    VOCABULARY,
    inputs,
    layer,
    loaded,
    norm,
    plain_layer,
    random,
    run,
    tables,
    wide_layer,
    write,
)
from torch import Tensor

from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch


def eagle_weights(bias: bool = False) -> dict[str, Tensor]:
    weights = {"embed_tokens.weight": tables()[0], "fc.weight": random(SIZE, 2 * SIZE, seed=50)}
    if bias:
        weights["fc.bias"] = random(SIZE, seed=51)
    return weights | layer("layers.0.", input_norm=False)


def eagle3_weights(size: int = KNOWN) -> dict[str, Tensor]:
    weights = {
        "fc.weight": random(SIZE, 3 * SIZE, seed=52),
        "norm.weight": random(SIZE, seed=53),
        "lm_head.weight": random(size, SIZE, seed=54),
    }
    if size < VOCABULARY:
        tokens = torch.arange(size) + (torch.arange(size) > 9) * 3  # the model's tokens 0..9 and 13..26
        weights["d2t"] = tokens - torch.arange(size)
        weights["t2d"] = torch.zeros(VOCABULARY, dtype=torch.bool).index_fill(0, tokens, True)
    return weights | layer("midlayer.", wide=True)


@pytest.mark.parametrize("bias", [False, True])
def test_eagle_makes_the_next_state_of_the_token_beside_the_last_state(bias: bool, tmp_path: Path) -> None:
    weights = eagle_weights(bias)
    head = loaded(write(tmp_path, weights, CONFIG))
    outputs = run(head)
    tokens, _, states = inputs()
    embedding, product = tables()
    x = torch.cat([embedding[tokens[0]], states[:, LAYERS]], -1) @ weights["fc.weight"].T + weights.get("fc.bias", 0)
    state = plain_layer(weights, "layers.0.", x)
    assert (head.architecture, head.taps) == ("eagle", (LAYERS,))
    torch.testing.assert_close(outputs["state"], state, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outputs["logits"], state @ product.T, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [KNOWN, VOCABULARY])
def test_eagle3_attends_to_the_token_beside_the_states_of_three_layers(size: int, tmp_path: Path) -> None:
    weights = eagle3_weights(size)
    head = loaded(write(tmp_path, weights, CONFIG | {"draft_vocab_size": size}))
    outputs = run(head)
    tokens, _, states = inputs()
    x = states[:, [1, 3, 4]].flatten(1) @ weights["fc.weight"].T  # what goes into the layers 2, 8 // 2 and 8 - 3
    state = wide_layer(weights, "midlayer.", tables()[0][tokens[0]], x, x)
    logits = norm(state, weights["norm.weight"]) @ weights["lm_head.weight"].T
    assert (head.architecture, head.taps) == ("eagle3", (1, 3, 4))
    torch.testing.assert_close(outputs["state"], state, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outputs["logits"], logits, atol=1e-4, rtol=1e-4)
    if size == VOCABULARY:
        assert head.vocabulary is None
    else:
        assert head.vocabulary is not None
        assert head.vocabulary.tolist() == [*range(10), *range(13, 27)]


def test_scaled_positions_are_those_of_the_configuration(tmp_path: Path) -> None:
    weights = eagle_weights()
    scaling = {"type": "linear", "factor": 4.0}
    outputs = run(loaded(write(tmp_path, weights, CONFIG | {"rope_scaling": scaling})))
    tokens, _, states = inputs()
    x = torch.cat([tables()[0][tokens[0]], states[:, LAYERS]], -1) @ weights["fc.weight"].T
    frequencies = THETA ** (-torch.arange(0, HEAD_SIZE, 2) / HEAD_SIZE) / 4
    state = plain_layer(weights, "layers.0.", x, frequencies)
    torch.testing.assert_close(outputs["state"], state, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "gelu"}, r"hidden_act is 'gelu'; specc runs heads with 'silu'"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "by 'dynamic'; specc knows linear and llama3"),
        ({"partial_rotary_factor": 0.5}, r"partial_rotary_factor is 0\.5; specc runs heads that turn whole heads"),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}}, r"partial_rotary_factor is 0\.25"),
        ({"num_attention_heads": None}, "num_attention_heads is None; it must be a whole number"),
        (
            {"hidden_size": 16},
            r"has layers.0.* of shape \[32\], and config.json asks for \[16\]; .*EAGLE and EAGLE-2 whose config",
        ),
    ],
)
def test_what_specc_does_not_compute_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=message):
        loaded(write(tmp_path, eagle_weights(), CONFIG | change))


def test_a_head_that_knows_all_tokens_and_names_others_is_refused(tmp_path: Path) -> None:
    weights = eagle3_weights(VOCABULARY)
    write(tmp_path / "zeros", weights | {"d2t": torch.zeros(VOCABULARY, dtype=torch.long)}, CONFIG)
    assert loaded(tmp_path / "zeros").vocabulary is None
    with pytest.raises(HeadError, match=f"d2t that moves tokens, though its head knows all {VOCABULARY} tokens"):
        loaded(write(tmp_path / "moved", weights | {"d2t": torch.ones(VOCABULARY, dtype=torch.long)}, CONFIG))
