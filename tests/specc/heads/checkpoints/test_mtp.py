"""Modules for multi-token prediction give what their models compute."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published_heads import (
    CONFIG,
    LAYERS,
    SIZE,
    VOCABULARY,
    inputs,
    layer,
    loaded,
    norm,
    plain_layer,
    random,
    run,
    tables,
    write,
)
from torch import Tensor

from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch
# Prefix, norm of the token, norm of the state, product, last norm, and the product of the logits, if it has one.
FORMS = {
    "deepseek": ("model.layers.8.", "enorm", "hnorm", "eh_proj", "shared_head.norm", "shared_head.head"),
    "mimo": ("model.mtp_layers.0.", "token_layernorm", "hidden_layernorm", "input_proj", "final_layernorm", ""),
    "speculators": ("mtp_layers.0.", "token_layernorm", "hidden_layernorm", "input_proj", "final_layernorm", ""),
}


def weights_of(form: str) -> dict[str, Tensor]:
    prefix, token, state, product, last, head = FORMS[form]
    weights = {
        f"{prefix}{token}.weight": random(SIZE, seed=40),
        f"{prefix}{state}.weight": random(SIZE, seed=41),
        f"{prefix}{product}.weight": random(SIZE, 2 * SIZE, seed=42),
        f"{prefix}{last}.weight": random(SIZE, seed=43),
    }
    if head:
        weights[f"{prefix}{head}.weight"] = random(VOCABULARY, SIZE, seed=44)
    return weights | layer(prefix)


@pytest.mark.parametrize("form", FORMS)
def test_a_module_norms_the_token_and_the_state_before_its_product(form: str, tmp_path: Path) -> None:
    prefix, token_name, state_name, product, last, own = FORMS[form]
    weights = weights_of(form)
    rest = {"model.layers.0.self_attn.q_proj.weight": torch.zeros(2, 2)}  # of the model, which nobody reads
    head = loaded(write(tmp_path, weights | rest, CONFIG))
    outputs = run(head)
    tokens, _, states = inputs()
    embedding, table = tables()
    token = norm(embedding[tokens[0]], weights[f"{prefix}{token_name}.weight"])
    state = norm(states[:, LAYERS], weights[f"{prefix}{state_name}.weight"])
    both = [state, token] if form == "mimo" else [token, state]
    x = plain_layer(weights, prefix, torch.cat(both, -1) @ weights[f"{prefix}{product}.weight"].T)
    normed = norm(x, weights[f"{prefix}{last}.weight"])
    logits = normed @ (weights[f"{prefix}{own}.weight"] if own else table).T
    assert (head.architecture, head.taps) == ("mtp", (LAYERS,))
    torch.testing.assert_close(outputs["logits"], logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outputs["state"], x if form == "deepseek" else normed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["self_attn.kv_a_proj_with_mqa.weight", "mlp.experts.0.gate_proj.weight"])
def test_latent_attention_and_experts_are_refused(name: str, tmp_path: Path) -> None:
    weights = weights_of("deepseek") | {f"model.layers.8.{name}": torch.zeros(2, 2)}
    with pytest.raises(HeadError, match=rf"has the tensor model\.layers\.8\.{name}, which specc's heads do not have"):
        loaded(write(tmp_path, weights, CONFIG))


def test_the_first_module_is_taken_of_several(tmp_path: Path) -> None:
    weights = weights_of("deepseek")
    others = {name.replace("layers.8.", "layers.10."): torch.zeros_like(t) for name, t in weights.items()}
    first = run(loaded(write(tmp_path / "one", weights, CONFIG)))
    both = run(loaded(write(tmp_path / "both", weights | others, CONFIG)))
    assert torch.equal(first["logits"], both["logits"])


@pytest.mark.parametrize("form", FORMS)
def test_a_module_without_one_of_its_norms_is_refused(form: str, tmp_path: Path) -> None:
    prefix, *norms = FORMS[form]
    for theirs, ours in ((norms[0], "token_norm"), (norms[1], "state_norm"), (norms[3], "norm")):
        weights = weights_of(form)
        del weights[f"{prefix}{theirs}.weight"]
        with pytest.raises(HeadError, match=f"lacks the tensor {ours} of shape"):
            loaded(write(tmp_path / theirs, weights, CONFIG))
