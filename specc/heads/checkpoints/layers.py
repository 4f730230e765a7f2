"""From a checkpoint's words for decoder layers to a head's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from specc.heads.checkpoints.format import Parts
from specc.heads.checkpoints.names import matrix
from specc.heads.checkpoints.source import EPS, Source
from specc.heads.checks import FRACTIONS, MOST_COUNT, MOST_SIZE
from specc.heads.config_file import CONFIG, shown
from specc.heads.head import HeadConfig, Target
from specc.runtime.errors import HeadError

ROPE_THETA = 10000.0
PART = "partial_rotary_factor"
LENGTH = "original_max_position_embeddings"


def layer_parts(
    source: Source,
    config: Mapping[str, Any],
    target: Target,
    *,
    architecture: str,
    taps: tuple[int, ...],
    weights: dict[str, Tensor],
    settings: Mapping[str, float],
) -> Parts:
    """Make a head of decoder layers.

    Args:
        source: the checkpoint.
        config: the part of its configuration that describes the layers.
        target: the model that the head was trained for.
        architecture: of the head.
        taps: the layers that it reads.
        weights: its tensors by the architecture's names. `vocabulary` is the distance from each of the head's tokens to
            the model's token, as EAGLE-3 stores it.
        settings: those that the format decides.

    Raises:
        HeadError: the configuration describes a layer that specc does not have.
    """
    size = matrix(source, weights, "head.weight").shape[0] if "head.weight" in weights else target.vocab_size
    distances = weights.pop("vocabulary", None)
    if distances is not None and list(distances.shape) != [size]:
        raise HeadError(
            f"{source.directory} has d2t of shape {list(distances.shape)} for {size} tokens of the head; "
            "download it again"
        )
    if distances is not None and size == target.vocab_size and distances.any():
        raise HeadError(
            f"{source.directory} has d2t that moves tokens, though its head knows all {size} tokens of the model; "
            "download it again"
        )
    if distances is not None and size < target.vocab_size:
        weights["vocabulary"] = distances + torch.arange(size)
    query, gate = (matrix(source, weights, name) for name in ("layers.0.query.weight", "layers.0.gate.weight"))
    everything = _layer_settings(source, config, query, gate) | _optional(weights) | dict(settings)
    return Parts(
        config=HeadConfig(
            architecture=architecture, target=target, taps=taps, draft_vocab_size=size, settings=everything
        ),
        weights=weights,
        frequencies=_frequencies(source, config, int(everything["head_size"])),
    )


def _optional(weights: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the settings that tell which optional tensors a head has. A format that needs one overrules them."""
    names = {
        "bias": "layers.0.query.bias",
        "head_norm": "layers.0.query_norm",
        "fusion_bias": "fc.bias",
        "input_norm": "layers.0.state_norm",
        "own_product": "head.weight",
        "token_norm": "token_norm",
        "state_norm": "state_norm",
    }
    settings: dict[str, float] = {option: 1 for option, name in names.items() if name in weights}
    return settings | {"final_norm": 1 if "norm" in weights else 0}


def _layer_settings(source: Source, config: Mapping[str, Any], query: Tensor, gate: Tensor) -> dict[str, float]:
    """Return the settings of `specc.heads.layer.Layer`, from a matrix of queries and one of an MLP's gate."""
    activation = config.get("hidden_act", "silu")
    if activation != "silu":
        raise HeadError(
            f"{source.directory / CONFIG} says hidden_act is {shown(activation)}; specc runs heads with 'silu'"
        )
    heads = source.number(config, "num_attention_heads", MOST_COUNT)
    key_heads = heads
    if config.get("num_key_value_heads") is not None:
        key_heads = source.number(config, "num_key_value_heads", MOST_COUNT)
    if query.shape[0] % heads:
        raise HeadError(
            f"{source.directory / CONFIG} says num_attention_heads is {heads}, which does not divide the "
            f"{query.shape[0]} rows of queries; download it again"
        )
    return {
        "heads": heads,
        "key_heads": key_heads,
        "head_size": query.shape[0] // heads,
        "mlp_size": gate.shape[0],
        "rope_theta": _theta(source, config),
        "eps": source.positive(config, "rms_norm_eps", EPS, FRACTIONS["eps"]),
    }


def _theta(source: Source, config: Mapping[str, Any]) -> float:
    """Return the base of the rotary embedding."""
    rope, name, most = _rope(source, config), "rope_theta", FRACTIONS["rope_theta"]
    if rope.get(name) is not None:
        return source.positive(rope, name, None, most)
    return ROPE_THETA if config.get(name) is None else source.positive(config, name, None, most)


def _frequencies(source: Source, config: Mapping[str, Any], head_size: int) -> Tensor | None:
    """Return the frequencies of a scaled rotary embedding, [head_size / 2]; None if it is not scaled.

    Raises:
        HeadError: the scaling is unknown, or its numbers are incomplete or out of range.
    """
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = _rope(source, config)
    part = rope.get(PART, config.get(PART, 1))
    if part != 1:
        raise HeadError(
            f"{source.directory / CONFIG} says {PART} is {shown(part)}; specc runs heads that turn whole heads of "
            "attention"
        )
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return None
    if kind not in ("linear", "llama3"):
        raise HeadError(
            f"{source.directory / CONFIG} scales its positions by {shown(kind)}; specc knows linear and llama3"
        )
    names = ["factor"] if kind == "linear" else ["factor", "low_freq_factor", "high_freq_factor", LENGTH]
    numbers: dict[str, Any] = {name: source.positive(rope, name, None, MOST_SIZE) for name in names}
    if kind == "llama3":
        numbers[LENGTH] = source.number(rope, LENGTH)
        if numbers["low_freq_factor"] >= numbers["high_freq_factor"]:
            raise HeadError(
                f"{source.directory / CONFIG} says low_freq_factor is {numbers['low_freq_factor']}; it must be "
                f"less than high_freq_factor, {numbers['high_freq_factor']}"
            )
    size = source.number(config, "hidden_size")
    whole: Any = LlamaConfig(
        hidden_size=size,
        num_attention_heads=max(1, size // head_size),
        head_dim=head_size,
        rope_parameters={"rope_type": kind, "rope_theta": _theta(source, config), **numbers},
    )
    compute: Callable[..., tuple[Tensor, float]] = ROPE_INIT_FUNCTIONS[kind]
    return compute(whole, torch.device("cpu"))[0]


def _rope(source: Source, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a configuration says of its rotary embedding, by its old name or its new one."""
    return source.section(config, "rope_parameters") or source.section(config, "rope_scaling")
