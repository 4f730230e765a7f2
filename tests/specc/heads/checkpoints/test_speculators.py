"""Heads of speculators give what its kinds compute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from published_heads import (
    CONFIG,
    KNOWN,
    LAYERS,
    SIZE,
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


def config(kind: str, layers: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "speculators_model_type": kind,
        "transformer_layer_config": CONFIG | {"num_hidden_layers": layers},
        "speculators_config": {"algorithm": kind, "verifier": {"name_or_path": "org/model"}},
        **changes,
    }


@pytest.mark.parametrize("layernorms", [False, True])
def test_eagle_has_norms_where_its_checkpoint_has_them(layernorms: bool, tmp_path: Path) -> None:
    weights = {"fusion_fc.weight": random(SIZE, 2 * SIZE, seed=50), "fusion_fc.bias": random(SIZE, seed=51)}
    weights |= layer("transformer.", input_norm=layernorms)
    if layernorms:
        weights |= {f"{n}_layernorm.weight": random(SIZE, seed=s) for n, s in (("embedding", 52), ("pre_lm_head", 53))}
    head = loaded(write(tmp_path, weights, config("eagle")))
    outputs = run(head)
    tokens, _, states = inputs()
    embedding, product = tables()
    token = embedding[tokens[0]]
    token = norm(token, weights["embedding_layernorm.weight"]) if layernorms else token
    x = torch.cat([token, states[:, LAYERS]], -1) @ weights["fusion_fc.weight"].T + weights["fusion_fc.bias"]
    state = plain_layer(weights, "transformer.", x)
    read = norm(state, weights["pre_lm_head_layernorm.weight"]) if layernorms else state
    assert head.config.target.name == "org/model"
    torch.testing.assert_close(outputs["state"], state, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(outputs["logits"], read @ product.T, atol=1e-4, rtol=1e-4)


def eagle3_weights(layers: int) -> dict[str, Tensor]:
    weights = {
        "fc.weight": random(SIZE, 3 * SIZE, seed=52),
        "norm.weight": random(SIZE, seed=53),
        "lm_head.weight": random(KNOWN, SIZE, seed=54),
        "d2t": torch.full((KNOWN,), 5),
    } | layer("layers.0.", wide=True)
    return weights | (layer("layers.1.", seed=70) if layers == 2 else {})


@pytest.mark.parametrize("option", ["", "norm_before_residual", "norm_before_fc", "fc_norm", "norm_output"])
def test_eagle3_has_the_options_of_its_configuration(option: str, tmp_path: Path) -> None:
    weights = eagle3_weights(2)
    ids = [3, 5, 8]  # what goes into these layers; 8 is behind the last
    changes: dict[str, Any] = {"eagle_aux_hidden_state_layer_ids": ids, "draft_vocab_size": KNOWN}
    if option:
        changes[option] = True
    tokens, _, states = inputs()
    taps = [states[:, i - 1] for i in ids]
    if option == "norm_before_fc":
        weights["input_norm.weight"] = random(3 * SIZE, seed=60)
        read = norm(torch.cat(taps, -1), weights["input_norm.weight"])
    elif option == "fc_norm":
        weights |= {f"fc_norm.{i}.weight": random(SIZE, seed=60 + i) for i in range(3)}
        read = torch.cat([norm(tap, weights[f"fc_norm.{i}.weight"]) for i, tap in enumerate(taps)], -1)
    else:
        read = torch.cat(taps, -1)
    head = loaded(write(tmp_path, weights, config("eagle3", 2, **changes)))
    outputs = run(head)
    x = read @ weights["fc.weight"].T
    residual = norm(x, weights["layers.0.hidden_norm.weight"]) if option == "norm_before_residual" else x
    x = wide_layer(weights, "layers.0.", tables()[0][tokens[0]], x, residual)
    x = plain_layer(weights, "layers.1.", x)
    normed = norm(x, weights["norm.weight"])
    assert head.taps == (2, 4, 7) and head.vocabulary is not None and head.vocabulary.tolist() == list(range(5, 29))
    torch.testing.assert_close(outputs["state"], normed if option == "norm_output" else x, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs["logits"], normed @ weights["lm_head.weight"].T, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fc_norm", [False, True])
def test_peagle_guesses_from_slots_of_the_mask_token(fc_norm: bool, tmp_path: Path) -> None:
    weights = eagle3_weights(1) | {"mask_hidden": random(1, 1, 3 * SIZE, seed=81), "embed_tokens.weight": tables()[0]}
    weights |= {f"fc_norm.{i}.weight": random(SIZE, seed=60 + i) for i in range(3)} if fc_norm else {}
    more: dict[str, Any] = {"eagle_aux_hidden_state_layer_ids": [3, 5, 8], "mask_token_id": 7, "fc_norm": fc_norm}
    head = loaded(write(tmp_path, weights, config("peagle", **more)))
    tokens, positions, states = inputs()
    guesses = 2  # the last slots, which stand on no token
    taps = [torch.cat([states[:-guesses, i], weights["mask_hidden"][0].chunk(3, -1)[n].expand(guesses, -1)])
            for n, i in enumerate((2, 4, 7))]  # fmt: skip
    if fc_norm:
        taps = [norm(tap, weights[f"fc_norm.{n}.weight"]) for n, tap in enumerate(taps)]
    x = torch.cat(taps, -1) @ weights["fc.weight"].T
    token = torch.cat([tables()[0][tokens[0, :-guesses]], tables()[0][7].expand(guesses, -1)])
    x = wide_layer(weights, "layers.0.", token, x, x)
    logits = norm(x, weights["norm.weight"]) @ weights["lm_head.weight"].T
    fused = head.fuse(torch.cat([states[:, tap] for tap in head.taps], -1)[None])
    fused[:, -guesses:] = 0
    outputs = head(tokens, positions, fused)
    assert head.architecture == "peagle" and set(outputs) == {"logits"}
    torch.testing.assert_close(outputs["logits"][0], logits, atol=1e-4, rtol=1e-4)


def test_peagle_without_a_mask_token_is_refused(tmp_path: Path) -> None:
    weights = eagle3_weights(1) | {"mask_hidden": random(1, 1, 3 * SIZE, seed=81)}
    with pytest.raises(HeadError, match=r"no embedding of a mask token \(mask_token_id is 7 in config.json\)"):
        loaded(write(tmp_path, weights, config("peagle", mask_token_id=7)))


def test_a_configuration_without_its_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="has no transformer_layer_config; download it again"):
        loaded(write(tmp_path, eagle3_weights(1), {"speculators_model_type": "eagle3"}))


@pytest.mark.parametrize("layers", [[1, 2, "5"], [True, 3, 5], [1.0, 3, 5], 3, [-1, 3, 5]])
def test_layers_that_are_no_whole_numbers_are_refused(layers: Any, tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"eagle_aux_hidden_state_layer_ids is .*; it must be a list of whole numbers"):
        loaded(write(tmp_path, eagle3_weights(1), config("eagle3", eagle_aux_hidden_state_layer_ids=layers)))
