"""Heads of DFlash, of its authors and of speculators, give what the paper's architecture computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from block_attention import block_attention
from published_heads import (
    CONFIG,
    HEAD_SIZE,
    HEADS,
    KEY_HEADS,
    KNOWN,
    SIZE,
    THETA,
    VOCABULARY,
    inputs,
    layer,
    loaded,
    mlp,
    norm,
    random,
    tables,
    write,
)
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from specc.heads.dflash import Dflash
from specc.runtime.drafters.dflash import PENDING
from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch
TAPS, MASK, BLOCK = [1, 4], 7, 4
OPTIONS = {"block_size": BLOCK, "mask_token_id": MASK}
AUTHORS = CONFIG | {"num_hidden_layers": 2, "block_size": BLOCK}
AUTHORS["dflash_config"] = {"mask_token_id": MASK, "target_layer_ids": TAPS}


def speculators(**changes: Any) -> dict[str, Any]:
    config = {"speculators_model_type": "dflash", "transformer_layer_config": CONFIG | {"num_hidden_layers": 2}}
    return config | OPTIONS | {"aux_hidden_state_layer_ids": [tap + 1 for tap in TAPS]} | changes


def dflash_weights(size: int = VOCABULARY) -> dict[str, Tensor]:
    weights = {"fc.weight": random(SIZE, len(TAPS) * SIZE, seed=52)}
    weights |= {"hidden_norm.weight": random(SIZE, seed=53), "norm.weight": random(SIZE, seed=54)}
    for index in range(2):
        weights |= layer(f"layers.{index}.", seed=70 + 20 * index)
        names = (f"layers.{index}.self_attn.{x}_norm.weight" for x in "qk")
        weights |= {name: random(HEAD_SIZE, seed=60 + index) for name in names}
    if size < VOCABULARY:
        weights |= {"lm_head.weight": random(size, SIZE, seed=55), "d2t": torch.full((size,), 5)}
    return weights


def expected(weights: Mapping[str, Tensor], context: Tensor, block: Tensor) -> Tensor:
    """Return the stream of a block behind a text, layer after layer.

    Args:
        weights: of the checkpoint.
        context: [n, d]: the joined states of the text.
        block: [S, d]: the embeddings of the block.
    """
    rows, slots = len(context), len(block)
    frequencies = THETA ** (-torch.arange(0, HEAD_SIZE, 2) / HEAD_SIZE)
    angles = torch.polar(torch.ones(1), torch.arange(rows + slots)[:, None] * frequencies)

    def heads(x: Tensor, weight: Tensor | None, start: int) -> Tensor:
        x = torch.unflatten(x, -1, (-1, HEAD_SIZE)).transpose(0, 1)
        if weight is None:
            return x
        x = norm(x, weight)
        turned = torch.complex(x[..., : HEAD_SIZE // 2], x[..., HEAD_SIZE // 2 :]) * angles[start:]
        return torch.cat([turned.real, turned.imag], -1)

    x = block
    for index in range(2):
        prefix = f"layers.{index}."
        read = norm(x, weights[f"{prefix}input_layernorm.weight"])
        source = torch.cat([context, read])
        names = {kind: f"{prefix}self_attn.{kind}" for kind in "qkvo"}
        query = heads(read @ weights[f"{names['q']}_proj.weight"].T, weights[f"{names['q']}_norm.weight"], rows)
        key = heads(source @ weights[f"{names['k']}_proj.weight"].T, weights[f"{names['k']}_norm.weight"], 0)
        value = heads(source @ weights[f"{names['v']}_proj.weight"].T, None, 0)
        key, value = (each.repeat_interleave(HEADS // KEY_HEADS, 0) for each in (key, value))
        attended = scaled_dot_product_attention(query[None], key[None], value[None])[0]
        x = x + attended.transpose(0, 1).flatten(1) @ weights[f"{names['o']}_proj.weight"].T
        x = x + mlp(weights, prefix, x)
    return x


def run(head: Dflash) -> Tensor:
    """Return the logits [S, V'] of a block behind the text of `inputs`."""
    tokens, _, states = inputs()
    rows = tokens.shape[1]
    state = head.fuse(torch.cat([states[:, tap] for tap in head.taps], -1)[None])
    block = torch.zeros(1, BLOCK, state.shape[-1])
    block[0, :, -1] = torch.arange(PENDING, PENDING + BLOCK)
    both = torch.cat([tokens[:, 1:], tokens[:, -1:].expand(-1, 1 + BLOCK)], 1)
    positions = torch.arange(rows + BLOCK)[None]
    x = head.run_layers(both, positions, torch.cat([state, block], 1), [block_attention(rows, BLOCK)] * 2)
    return head.logits(x)[0, rows:]


@pytest.mark.parametrize("size", [VOCABULARY, KNOWN])
@pytest.mark.parametrize("config", [AUTHORS, speculators()], ids=["authors", "speculators"])
def test_all_slots_of_a_block_see_one_another_and_the_joined_states(
    config: dict[str, Any], size: int, tmp_path: Path
) -> None:
    weights = dflash_weights(size)
    head = loaded(write(tmp_path, weights, config))
    assert isinstance(head, Dflash) and head.taps == tuple(TAPS) and head.guesses == BLOCK - 1
    tokens, _, states = inputs()
    embedding, product = tables()
    context = norm(
        torch.cat([states[:, tap] for tap in TAPS], -1) @ weights["fc.weight"].T, weights["hidden_norm.weight"]
    )
    block = embedding[torch.tensor([int(tokens[0, -1]), *[MASK] * (BLOCK - 1)])]
    last = norm(expected(weights, context, block), weights["norm.weight"])
    torch.testing.assert_close(run(head), last @ weights.get("lm_head.weight", product).T, atol=1e-4, rtol=1e-4)
    vocabulary = None if head.vocabulary is None else head.vocabulary.tolist()
    assert vocabulary == (None if size == VOCABULARY else list(range(5, 5 + size)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_size": 1}, "block_size is 1; it must be 2 or more"),
        ({"block_size": None}, "block_size is None; it must be a whole number"),
        ({"mask_token_id": VOCABULARY}, f"mask_token_id is {VOCABULARY}; it must be a token of the model, from 0 to"),
        ({"mask_token_id": True}, "mask_token_id is True; it must be a token"),
        ({"aux_hidden_state_layer_ids": None}, "aux_hidden_state_layer_ids is None; it must be a list of whole"),
        ({"aux_hidden_state_layer_ids": []}, "aux_hidden_state_layer_ids is .*; it must be a list of whole"),
        ({"sample_from_anchor": True}, "sample_from_anchor is True; specc runs DFlash heads without it"),
        ({"input_embedding_scale": 2.0}, r"input_embedding_scale is 2\.0; specc runs DFlash heads with 1"),
    ],
)
def test_what_specc_does_not_compute_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=message):
        loaded(write(tmp_path, dflash_weights(), speculators(**change)))


@pytest.mark.parametrize("config", [AUTHORS, speculators()], ids=["authors", "speculators"])
def test_a_head_without_the_norm_before_the_last_product_is_refused(config: dict[str, Any], tmp_path: Path) -> None:
    weights = dflash_weights()
    del weights["norm.weight"]
    with pytest.raises(HeadError, match="lacks the tensor norm of shape"):
        loaded(write(tmp_path, weights, config))


def test_layers_that_see_a_window_are_refused(tmp_path: Path) -> None:
    config = AUTHORS | {"layer_types": ["sliding_attention", "full_attention"]}
    with pytest.raises(
        HeadError, match="has layers of sliding_attention; specc runs DFlash heads whose layers see all"
    ):
        loaded(write(tmp_path, dflash_weights(), config))


def test_a_head_of_another_architecture_is_refused_by_its_tensors(tmp_path: Path) -> None:
    weights = dflash_weights() | {"prefix_gru.weight_ih_l0": random(SIZE, SIZE, seed=1)}
    with pytest.raises(HeadError, match=r"has the tensor prefix_gru\.weight_ih_l0, which specc's heads do not have"):
        loaded(write(tmp_path, weights, AUTHORS))
