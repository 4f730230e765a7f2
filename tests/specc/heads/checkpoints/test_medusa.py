"""Heads of Medusa's authors give what the paper's architecture computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published_heads import LAYERS, SIZE, VOCABULARY, inputs, loaded, random, run, write
from torch.nn.functional import silu

from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch
CONFIG = {"medusa_num_heads": 3, "medusa_num_layers": 1, "base_model_name_or_path": "org/model"}
NAMES = {
    "authors": ("{}.0.linear", "{}.1"),
    "merged": ("medusa_head.{}.0.linear", "medusa_head.{}.1"),
    "vllm": ("blocks.{}.layers.0", "lm_heads.{}"),
}


@pytest.mark.parametrize("form", NAMES)
def test_each_head_is_a_residual_block_and_a_product(form: str, tmp_path: Path) -> None:
    block, product = NAMES[form]
    weights = {}
    for k in range(3):
        weights[f"{block.format(k)}.weight"] = random(SIZE, SIZE, seed=10 + k)
        weights[f"{block.format(k)}.bias"] = random(SIZE, seed=20 + k)
        weights[f"{product.format(k)}.weight"] = random(VOCABULARY, SIZE, seed=30 + k)
    model = {"model.norm.weight": torch.ones(SIZE)} if form == "merged" else {}
    head = loaded(write(tmp_path, weights | model, CONFIG, "medusa_lm_head"))
    outputs = run(head)
    state = inputs()[2][:, LAYERS]
    for k in range(3):
        x = state + silu(state @ weights[f"{block.format(k)}.weight"].T + weights[f"{block.format(k)}.bias"])
        logits = x @ weights[f"{product.format(k)}.weight"].T
        torch.testing.assert_close(outputs["logits"][:, k], logits, atol=1e-4, rtol=1e-4)
    assert (head.architecture, head.taps, head.config.target.name) == ("medusa", (LAYERS,), "org/model")


def test_a_head_of_two_blocks_is_refused(tmp_path: Path) -> None:
    weights = {"0.0.linear.weight": random(SIZE, SIZE, seed=1), "0.0.linear.bias": random(SIZE, seed=1)}
    weights |= {"0.1.linear.weight": random(SIZE, SIZE, seed=1), "0.2.weight": random(VOCABULARY, SIZE, seed=1)}
    with pytest.raises(HeadError, match=r"has the tensor 0\.1\.linear\.weight; specc runs Medusa heads of one"):
        loaded(write(tmp_path, weights, CONFIG))
