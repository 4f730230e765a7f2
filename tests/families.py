"""Tiny models of every family that is tested, from their configuration class, with random weights.

Norm weights and biases are random too, windows are shorter than the sequences that tests run, and epsilons are large,
so that leaving any of them out shows.
"""

from __future__ import annotations

import zlib
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 128
WINDOW = 8
POSITIONS = 128
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

# what a family's configuration has of these is set to these
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "n_positions": POSITIONS,
    "hidden_size": 64, "n_embd": 64, "intermediate_size": 96, "moe_intermediate_size": 24, "ffn_dim": 96,
    "num_hidden_layers": 3, "n_layer": 3, "num_attention_heads": 4, "n_head": 4, "num_key_value_heads": 2,
    "head_dim": 16, "num_experts": 6, "num_local_experts": 6, "num_experts_per_tok": 2,
    "attention_bias": True, "mlp_bias": True, "use_bias": True, "qkv_bias": True, "use_qkv_bias": True,
    "rms_norm_eps": 1e-2, "layer_norm_eps": 1e-2, "layer_norm_epsilon": 1e-2, "norm_epsilon": 1e-2, "norm_eps": 1e-2,
    "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
    "v_head_dim": 12, "head_dim": 8,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": WINDOW},
    "gemma": {"num_key_value_heads": 1, "head_dim": 32},
    "gemma2": {
        "sliding_window": WINDOW, "layer_types": MIXED, "query_pre_attn_scalar": 24,
        "attn_logit_softcapping": 1.5, "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {"sliding_window": WINDOW, "layer_types": MIXED, "query_pre_attn_scalar": 24},
    "phi": {"num_attention_heads": 2, "num_key_value_heads": 2, "qk_layernorm": True},
    "phi3": {"sliding_window": WINDOW},
    "opt": {},
    "gpt2": {"scale_attn_by_inverse_layer_idx": True},
    "gpt_neox": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
    "stablelm": {"qk_layernorm": True},
    "olmo": {"clip_qkv": 1.0},
    "olmo2": {},
    "olmo3": {"sliding_window": WINDOW, "layer_types": MIXED},
    "granite": {
        "embedding_multiplier": 3.0, "attention_multiplier": 0.4, "residual_multiplier": 0.6, "logits_scaling": 2.0,
    },
    "cohere": {"use_qk_norm": True, "logit_scale": 0.5},
    "cohere2": {"sliding_window": WINDOW, "layer_types": MIXED, "logit_scale": 0.5},
    "starcoder2": {"sliding_window": WINDOW},
    "mixtral": {"sliding_window": WINDOW},
    "qwen2_moe": {"shared_expert_intermediate_size": 32, "mlp_only_layers": [1]},
    "qwen3_moe": {"norm_topk_prob": True},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
    "glm4": {},
    "nemotron": {},
    "gpt_bigcode": {},
    "ernie4_5": {},
    "exaone4": {"sliding_window": WINDOW, "layer_types": MIXED},
    "helium": {},
    "hunyuan_v1_dense": {},
    "bitnet": {},
    "arcee": {},
    "seed_oss": {},
    "gpt_oss": {"sliding_window": WINDOW, "layer_types": MIXED},
    "deepseek_v3": LATENT | {"n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1},
    "minicpm3": LATENT,
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    # what a configuration can turn another way
    "llama-llama3": {
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 100.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        }
    },
    "llama-yarn": {
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 32,
        }
    },
    "llama-small-heads": {"head_dim": 4},
    "llama-dynamic": {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}},
    "phi3-longrope": {
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 100.0, "original_max_position_embeddings": 64,
            "short_factor": [1.0, 1.1, 1.3, 1.7, 2.0, 2.5, 3.0, 4.0], "long_factor": [2.0] * 8,
        }
    },
    "gpt_neox-sequential": {"use_parallel_residual": False, "tie_word_embeddings": True},
    "stablelm-parallel": {"use_parallel_residual": True},
    "opt-post-norm": {"do_layer_norm_before": False, "word_embed_proj_dim": 32},
    "gpt_bigcode-heads": {"multi_query": False},
}  # fmt: skip
# Whether these are refused or captured is up to the release of transformers; 5.24 has each of them refused.
UNREACHED: dict[str, dict[str, Any]] = {
    "bloom": {},
    "falcon": {},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "mamba": {},
    "mpt": {"d_model": 64, "n_heads": 4, "n_layers": 2},
}

NEAR_ANOTHER = {
    "opt-post-norm",
    "llama-small-heads",
    "olmo2",
    "qwen2_moe",
    "gpt_bigcode-heads",
    "cohere",
    "arcee",
    "codegen",
    "ernie4_5",
    "exaone4",
    "gemma",
    "gemma3_text",
    "glm4",
    "helium",
    "hunyuan_v1_dense",
    "minicpm3",
    "mixtral",
    "nemotron",
    "olmo",
    "olmo3",
    "qwen2",
    "seed_oss",
    "smollm3",
    "starcoder2",
}  # each step of theirs is one of another family's; test_capture.py compares all families with transformers


def config(family: str) -> Any:
    kind = family.partition("-")[0]
    factory = CONFIG_MAPPING[kind]
    names = factory().to_dict()
    own = FAMILIES[family] if family in FAMILIES else UNREACHED[family]
    return factory(**{k: v for k, v in COMMON.items() if k in names} | own)


def tiny(family: str) -> PreTrainedModel:
    """A model of `family`, the same at each call: three layers, logits of a scale near 1."""
    torch.manual_seed(zlib.crc32(family.encode()))
    model: PreTrainedModel = (
        AutoModelForCausalLM.from_config(config(family), attn_implementation="eager").eval().requires_grad_(False)
    )
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            noise = torch.randn_like(parameter)
            if isinstance(module, torch.nn.Embedding):
                parameter.copy_(0.4 * noise)
            elif parameter.ndim == 1 or "bias" in name:
                parameter.add_(0.2 * noise)
            else:
                parameter.copy_(noise * min(parameter.shape[-2:]) ** -0.5)
    return model
