"""GGUF files of a small random Llama."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import gguf
import numpy as np

HIDDEN, HEADS, KV_HEADS, LAYERS, INNER = 64, 2, 1, 2, 256
WORDS = ["<unk>", "<s>", "</s>", *(chr(c) for c in range(33, 127)), *(f"w{i}" for i in range(31))]
KIND: Any = gguf.GGMLQuantizationType
# where the numbers of fp16 stand in a block; in other types at 0 alone
HALVES_AT = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
SUPER_BLOCK = 256  # numbers of a block of the types Q4_K to Q6_K, which the package gguf does not write


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """Make random weights of a small Llama, under GGUF's names."""
    rng = np.random.default_rng(seed)
    size = HIDDEN // HEADS
    shapes = {"token_embd.weight": (len(WORDS), HIDDEN), "output_norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_q.weight": (HIDDEN, HIDDEN),
            f"blk.{i}.attn_k.weight": (KV_HEADS * size, HIDDEN),
            f"blk.{i}.attn_v.weight": (KV_HEADS * size, HIDDEN),
            f"blk.{i}.attn_output.weight": (HIDDEN, HIDDEN),
            f"blk.{i}.ffn_gate.weight": (INNER, HIDDEN),
            f"blk.{i}.ffn_up.weight": (INNER, HIDDEN),
            f"blk.{i}.ffn_down.weight": (HIDDEN, INNER),
            f"blk.{i}.attn_norm.weight": (HIDDEN,),
            f"blk.{i}.ffn_norm.weight": (HIDDEN,),
        }
    return {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def random_blocks(kind: str, rows: int, k: int, scale: float = 1.0) -> np.ndarray:
    """Make random blocks of a type.

    Args:
        kind: the type.
        rows: of the matrix.
        k: numbers of a row.
        scale: the largest of the blocks' numbers in fp16. The least is half of it.

    Returns:
        [rows, bytes] uint8.
    """
    rng = np.random.default_rng(0)
    numbers, size = gguf.GGML_QUANT_SIZES[KIND[kind]]
    data = rng.integers(0, 256, (rows, k // numbers, size), np.uint8)
    for at in HALVES_AT.get(kind, (0,)):
        halves = rng.uniform(scale / 2, scale, (*data.shape[:2], 1)).astype(np.float16)
        data[..., at : at + 2] = halves.view(np.uint8)
    return np.asarray(data.reshape(rows, -1))


def encoded(value: np.ndarray, kind: Any) -> np.ndarray:
    """Return a matrix in blocks of a type: its own numbers, or random ones in a type that gguf does not write."""
    if gguf.GGML_QUANT_SIZES[kind][0] == SUPER_BLOCK:
        return random_blocks(kind.name, value.shape[0], value.shape[1], scale=1e-4)
    blocks: np.ndarray = gguf.quants.quantize(value, kind)
    return blocks


def write(
    file: Path,
    kind: Any = KIND.F32,
    names: Iterable[str] | None = None,
    header: bool = True,
    others: Mapping[str, Any] = MappingProxyType({}),
) -> Path:
    """Write a GGUF file with the tensors that `names` names, all by default. `others` have types of their own."""
    writer = gguf.GGUFWriter(file, "llama")
    if header:
        writer.add_context_length(128)
        writer.add_embedding_length(HIDDEN)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(10000.0)
        writer.add_vocab_size(len(WORDS))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(WORDS)
        writer.add_token_types([3, 3, 3] + [1] * (len(WORDS) - 3))
        writer.add_token_merges(["w 1"])
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
    for name, value in tensors().items():
        if names is not None and name not in names:
            continue
        own = others.get(name, kind)
        if value.ndim == 1 or own == KIND.F32:
            writer.add_tensor(name, value)
        else:
            writer.add_tensor(name, encoded(value, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
