"""Tiny heads in the formats of others, and what they compute, in plain torch by the papers and apart from specc.

B  sequences, one      N  slots      d  hidden size
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from specc.heads import Head, Target
from specc.heads.checkpoints import read_checkpoint

SIZE, HEADS, KEY_HEADS, MLP, VOCABULARY, KNOWN, LAYERS = 32, 4, 2, 48, 40, 24, 8
HEAD_SIZE, THETA, EPS = SIZE // HEADS, 5e4, 1e-5
CONFIG: dict[str, Any] = {
    "hidden_size": SIZE,
    "vocab_size": VOCABULARY,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KEY_HEADS,
    "intermediate_size": MLP,
    "rope_theta": THETA,
    "rms_norm_eps": EPS,
    "hidden_act": "silu",
}
MODEL = Target(name="toy", digest="0" * 16, hidden_size=SIZE, vocab_size=VOCABULARY, layers=LAYERS)


def random(*shape: int, seed: int) -> Tensor:
    return 0.4 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def layer(prefix: str, *, wide: bool = False, input_norm: bool = True, seed: int = 0) -> dict[str, Tensor]:
    """Return the tensors of a decoder layer, by transformers' names behind a prefix."""
    inputs = 2 * SIZE if wide else SIZE
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (HEADS * HEAD_SIZE, inputs),
        "self_attn.k_proj.weight": (KEY_HEADS * HEAD_SIZE, inputs),
        "self_attn.v_proj.weight": (KEY_HEADS * HEAD_SIZE, inputs),
        "self_attn.o_proj.weight": (SIZE, HEADS * HEAD_SIZE),
        "mlp.gate_proj.weight": (MLP, SIZE),
        "mlp.up_proj.weight": (MLP, SIZE),
        "mlp.down_proj.weight": (SIZE, MLP),
        "post_attention_layernorm.weight": (SIZE,),
    }
    if input_norm:
        shapes["input_layernorm.weight"] = (SIZE,)
    if wide:
        shapes["hidden_norm.weight"] = (SIZE,)
    return {prefix + name: random(*shape, seed=seed + i) for i, (name, shape) in enumerate(shapes.items(), 1)}


def norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def attention(weights: Mapping[str, Tensor], prefix: str, x: Tensor, frequencies: Tensor | None = None) -> Tensor:
    """Return what attention adds to the stream [N, d], one slot and one head after the other."""
    q, k, v = (x @ weights[f"{prefix}self_attn.{n}_proj.weight"].T for n in "qkv")
    if frequencies is None:
        frequencies = THETA ** (-torch.arange(0, HEAD_SIZE, 2) / HEAD_SIZE)
    rows = []
    for slot in range(len(x)):
        parts = []
        for head in range(HEADS):
            group = head * KEY_HEADS // HEADS
            query = _turn(q[slot, head * HEAD_SIZE : (head + 1) * HEAD_SIZE], slot, frequencies)
            columns = slice(group * HEAD_SIZE, (group + 1) * HEAD_SIZE)
            keys = torch.stack([_turn(k[row, columns], row, frequencies) for row in range(slot + 1)])
            weight = (keys @ query / HEAD_SIZE**0.5).softmax(0)
            parts.append(weight @ v[: slot + 1, columns])
        rows.append(torch.cat(parts))
    return torch.stack(rows) @ weights[f"{prefix}self_attn.o_proj.weight"].T


def _turn(x: Tensor, position: int, frequencies: Tensor) -> Tensor:
    """Multiply pairs, taken as complex numbers, by the angles of a position."""
    pairs = torch.complex(x[: HEAD_SIZE // 2], x[HEAD_SIZE // 2 :])
    turned = pairs * torch.polar(torch.ones_like(frequencies), position * frequencies)
    return torch.cat([turned.real, turned.imag])


def mlp(weights: Mapping[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    """Return what the gated MLP, behind its norm, adds to the stream [N, d]."""
    y = norm(x, weights[f"{prefix}post_attention_layernorm.weight"])
    gate, up, down = (weights[f"{prefix}mlp.{name}_proj.weight"] for name in ("gate", "up", "down"))
    return (functional.silu(y @ gate.T) * (y @ up.T)) @ down.T


def plain_layer(weights: Mapping[str, Tensor], prefix: str, x: Tensor, frequencies: Tensor | None = None) -> Tensor:
    """Run a decoder layer on a stream [N, d]."""
    weight = weights.get(f"{prefix}input_layernorm.weight")
    x = x + attention(weights, prefix, x if weight is None else norm(x, weight), frequencies)
    return x + mlp(weights, prefix, x)


def wide_layer(weights: Mapping[str, Tensor], prefix: str, token: Tensor, x: Tensor, residual: Tensor) -> Tensor:
    """Run EAGLE-3's layer on embeddings and a stream [N, d], of which `residual` goes on."""
    token = norm(token, weights[f"{prefix}input_layernorm.weight"])
    read = torch.cat([token, norm(x, weights[f"{prefix}hidden_norm.weight"])], -1)
    x = residual + attention(weights, prefix, read)
    return x + mlp(weights, prefix, x)


def write(directory: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any], file: str = "model") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, directory / f"{file}.safetensors")
    return directory


def tables() -> tuple[Tensor, Tensor]:
    """Return the embeddings of the model, and the matrix that makes its logits."""
    return random(VOCABULARY, SIZE, seed=91), random(VOCABULARY, SIZE, seed=92)


def loaded(directory: Path, model: Target = MODEL) -> Head:
    """Load a head of others and attach the model's tables."""
    embedding, product = tables()
    head = read_checkpoint(directory).head(model, embedding)
    head.attach(embedding, product)
    return head


def inputs(slots: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens [1, N], positions [1, N], and the model's states after every layer and the norm, [N, L + 1, d]."""
    tokens = torch.randint(VOCABULARY, (1, slots), generator=torch.Generator().manual_seed(7))
    return tokens, torch.arange(slots)[None], random(slots, LAYERS + 1, SIZE, seed=8)


def run(head: Head) -> dict[str, Tensor]:
    """Run a head on `inputs`, and return its outputs without the axis of sequences."""
    tokens, positions, states = inputs()
    taps = torch.cat([states[:, tap] for tap in head.taps], -1)[None]
    return {name: value[0] for name, value in head(tokens, positions, head.fuse(taps)).items()}
