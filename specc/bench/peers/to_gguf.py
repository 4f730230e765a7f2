"""A Hugging Face directory as a GGUF file, for the peers that read no other. Run as a script by a peer.

    to_gguf.py MODEL OUT TYPE

Architectures that GGUF's package knows by the name that the model has, with plain rotary positions and a byte-level
BPE. How llama.cpp wants the rows of queries and keys, llama.cpp itself says.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

TYPES = {
    "fp32": gguf.GGMLQuantizationType.F32, "fp16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16, "int8": gguf.GGMLQuantizationType.Q8_0,
    "int4": gguf.GGMLQuantizationType.Q4_0,
}  # fmt: skip


def tensors(model: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight as float32."""
    for file in sorted(model.glob("*.safetensors")):
        data = np.memmap(file, np.uint8, "r")
        end = 8 + int(data[:8].view("<u8")[0])
        for name, entry in json.loads(bytes(data[8:end])).items():
            if name == "__metadata__":
                continue
            raw = data[slice(*(end + o for o in entry["data_offsets"]))]
            if entry["dtype"] == "BF16":
                values = (raw.view("<u2").astype("<u4") << 16).view("<f4")
            else:
                values = raw.view({"F32": "<f4", "F16": "<f2"}[entry["dtype"]]).astype("<f4")
            yield name, values.reshape(entry["shape"])


def paired(array: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head in pairs (i, i + half), where the model has the halves one after the other."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def write(model: Path, out: Path, dtype: str, pairs: bool) -> None:
    config = json.loads((model / "config.json").read_text())
    names = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if config["model_type"] not in names or rope.get("rope_type", "default") != "default":
        raise ValueError(f"this conversion does not know {config['model_type']} with these positions")
    heads, layers = config["num_attention_heads"], config["num_hidden_layers"]
    shared, size = config.get("num_key_value_heads") or heads, config.get("head_dim")
    size = size or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(out, config["model_type"])
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(0)
    vocabulary(writer, model, config)
    mapped = gguf.get_tensor_name_map(names[config["model_type"]], layers)
    for name, array in tensors(model):
        known = mapped.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise ValueError(f"GGUF has no name for the weight {name}")
        if pairs and known.split(".")[2:3] in (["attn_q"], ["attn_k"]):
            array = paired(array, heads if known.split(".")[2] == "attn_q" else shared)
        kind = TYPES[dtype] if array.ndim > 1 else TYPES["fp32"]
        writer.add_tensor(known, gguf.quants.quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def vocabulary(writer: Any, model: Path, config: dict[str, Any]) -> None:
    """What a byte-level BPE says of itself; prompts come as token ids."""
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    if tokenizer["model"]["type"] != "BPE":
        raise ValueError(f"this conversion does not know a vocabulary of type {tokenizer['model']['type']}")
    ids = tokenizer["model"]["vocab"] | {t["content"]: t["id"] for t in tokenizer.get("added_tokens", ())}
    special = {t["id"] for t in tokenizer.get("added_tokens", ())}
    words = {i: word for word, i in ids.items()}
    size = config["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([words.get(i, f"[PAD{i}]") for i in range(size)])
    kinds = gguf.TokenType
    writer.add_token_types(
        [kinds.CONTROL if i in special else kinds.NORMAL if i in words else kinds.UNUSED for i in range(size)]
    )
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    end = config.get("eos_token_id")
    end = end[0] if isinstance(end, list) else end
    writer.add_eos_token_id(end or 0)
    writer.add_bos_token_id(config.get("bos_token_id") or end or 0)


def wants_pairs(file: Path) -> bool:
    """Whether llama.cpp rotates neighbours in this architecture, as it says once it has read the file's header."""
    settings = llama_cpp.llama_model_default_params()
    settings.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), settings)
    if not model:
        raise ValueError("llama.cpp does not load the file that was written for it")
    kind = llama_cpp.llama_model_rope_type(model)
    llama_cpp.llama_model_free(model)
    return bool(kind == llama_cpp.LLAMA_ROPE_TYPE_NORM)


def main() -> None:
    model, out, dtype = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    partial = out.with_suffix(".partial")
    write(model, partial, dtype, pairs=False)
    if wants_pairs(partial):
        write(model, partial, dtype, pairs=True)
    partial.replace(out)


if __name__ == "__main__":
    main()
