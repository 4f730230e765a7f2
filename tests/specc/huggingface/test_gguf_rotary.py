"""Rotary frequencies of GGUF files are those that llama.cpp decodes with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")

from specc.huggingface import load_model  # noqa: E402
from specc.huggingface.gguf import read_gguf  # noqa: E402
from specc.huggingface.gguf_rotary import RotaryScaling, apply_scaling, check_rotary_size  # noqa: E402
from specc.runtime.errors import CaptureError  # noqa: E402

pytestmark = pytest.mark.torch

SIZES: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip
BASE = {"rope_type": "default", "rope_theta": 10000.0}
LLAMA3 = BASE | {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def llama(rope: dict[str, Any]) -> Any:
    """Make a small Llama, its weights the same for every kind of rotary frequencies."""
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, rope_parameters=rope)).eval()


def permuted(weight: np.ndarray) -> np.ndarray:
    """Reorder the rows of queries or keys as llama.cpp's converter does: pairs that turn together side by side."""
    heads = weight.reshape(SIZES["num_attention_heads"], 2, -1, weight.shape[1])
    return np.ascontiguousarray(heads.swapaxes(1, 2).reshape(weight.shape))


def write(file: Path, keys: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """Write that Llama as a GGUF file, with some more keys and tensors."""
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(BASE["rope_theta"])
    writer.add_vocab_size(SIZES["vocab_size"])
    for name, value in keys.items():
        adders = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}
        adders[type(value)](f"llama.rope.{name}", value)
    for name, value in llama(BASE).state_dict().items():
        data = value.numpy()
        if ".layers." in name:
            _, _, layer, rest = name.split(".", 3)
            data = permuted(data) if "q_proj" in rest or "k_proj" in rest else data
            writer.add_tensor(f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight", data)
        elif name != "lm_head.weight":
            writer.add_tensor("token_embd.weight" if "embed" in name else "output_norm.weight", data)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def llama3_divisors() -> np.ndarray:
    """Return what llama.cpp's converter computes of Llama 3.1's parameters."""
    base, scaled = (llama(rope).model.rotary_emb.inv_freq for rope in (BASE, LLAMA3))
    divisors: np.ndarray = (base / scaled).numpy()
    return divisors


CASES: dict[str, tuple[dict[str, Any], bool, dict[str, Any]]] = {  # keys, whether divisors, the same for transformers
    "nothing": ({}, False, BASE),
    "none": ({"scaling.type": "none", "scaling.factor": 4.0}, False, BASE),
    "linear": ({"scaling.type": "linear", "scaling.factor": 4.0}, False, BASE | {"rope_type": "linear", "factor": 4.0}),
    "an older key": ({"scale_linear": 4.0}, False, BASE | {"rope_type": "linear", "factor": 4.0}),
    "divisors": ({}, True, LLAMA3),
}


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_logits_are_those_of_the_scaled_model(case: str, tmp_path: Path) -> None:
    keys, has_divisors, rope = CASES[case]
    tensors = {"rope_freqs.weight": llama3_divisors()} if has_divisors else {}
    ids = torch.arange(60)[None] % SIZES["vocab_size"]
    checkpoint, scaled, plain = load_model(str(write(tmp_path / "m.gguf", keys, tensors))), llama(rope), llama(BASE)
    torch.testing.assert_close(checkpoint(ids).logits, scaled(ids).logits)
    assert torch.allclose(checkpoint(ids).logits, plain(ids).logits, atol=1e-4) == (rope == BASE)


@pytest.mark.parametrize("kind", ["yarn", "longrope"])
def test_a_scaling_that_the_reader_leaves_out_is_refused(kind: str, tmp_path: Path) -> None:
    factors = np.ones(16, np.float32)
    tensors = {"rope_factors_long.weight": factors, "rope_factors_short.weight": factors} if kind == "longrope" else {}
    file = write(tmp_path / "m.gguf", {"scaling.type": kind, "scaling.factor": 4.0}, tensors)
    with pytest.raises(CaptureError, match=rf"m\.gguf scales its rotary frequencies by {kind}, .*; compile"):
        load_model(str(file))


def test_a_model_of_which_other_numbers_turn_than_the_file_says_is_refused() -> None:
    """Transformers does not read the key of every architecture. Phi-4-mini turns three quarters of a head."""
    for count in (None, 32):
        check_rotary_size(llama(BASE), count, "m.gguf")
    with pytest.raises(CaptureError, match=r"m\.gguf turns 24 numbers of each head .* turns 32; compile the original"):
        check_rotary_size(llama(BASE), 24, "m.gguf")


def test_the_numbers_that_turn_are_read_from_the_file(tmp_path: Path) -> None:
    assert read_gguf((write(tmp_path / "m.gguf", {"dimension_count": 24}, {}),)).rotary_size == 24
    assert read_gguf((write(tmp_path / "m.gguf", {}, {}),)).rotary_size is None


def test_a_scaling_that_transformers_has_applied_stays() -> None:
    model = llama(LLAMA3)
    before = model.model.rotary_emb.inv_freq.clone()
    apply_scaling(model, RotaryScaling(kind="llama3", divisors=None), "m.gguf")
    assert torch.equal(model.model.rotary_emb.inv_freq, before)


def test_layers_with_windows_keep_their_frequencies() -> None:
    """Gemma 3 scales those of its full layers alone."""
    kind: Any = CONFIG_MAPPING["gemma3_text"]
    model: Any = AutoModelForCausalLM.from_config(kind(**SIZES | {"num_hidden_layers": 6, "head_dim": 32}))
    rotary = model.model.rotary_emb
    full, sliding = rotary.full_attention_inv_freq.clone(), rotary.sliding_attention_inv_freq.clone()
    apply_scaling(model, RotaryScaling(kind="linear", divisors=np.array([8], np.float32)), "m.gguf")
    assert torch.equal(rotary.full_attention_inv_freq, full / 8)
    assert torch.equal(rotary.sliding_attention_inv_freq, sliding)
