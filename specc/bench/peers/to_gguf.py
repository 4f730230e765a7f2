"""Convert a Hugging Face directory to a GGUF file, for the peers that read no other form. A peer runs it as a script.

    to_gguf.py MODEL OUT TYPE

It converts architectures that the gguf package knows by the model's own name, with plain rotary positions and a
byte-level BPE. It asks llama.cpp itself in which order llama.cpp wants the rows of queries and keys.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

TYPES = {
    "fp32": gguf.GGMLQuantizationType.F32,
    "fp16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "int8": gguf.GGMLQuantizationType.Q8_0,
    "int4": gguf.GGMLQuantizationType.Q4_0,
}


def tensors(model: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Read every weight of a model as float32, with its name."""
    for file in sorted(model.glob("*.safetensors")):
        data = np.memmap(file, np.uint8, "r")
        header_end = 8 + int(data[:8].view("<u8")[0])
        for name, entry in json.loads(bytes(data[8:header_end])).items():
            if name == "__metadata__":
                continue
            start, end = (header_end + offset for offset in entry["data_offsets"])
            raw = data[start:end]
            if entry["dtype"] == "BF16":
                values = (raw.view("<u2").astype("<u4") << 16).view("<f4")
            else:
                values = raw.view({"F32": "<f4", "F16": "<f2"}[entry["dtype"]]).astype("<f4")
            yield name, values.reshape(entry["shape"])


def interleave_halves(array: np.ndarray, heads: int) -> np.ndarray:
    """Bring the rows of each head into pairs (i, i + half). Transformers has one half after the other.

    Args:
        array: a projection, [heads * size, …].
        heads: how many heads it has.
    """
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def write(model: Path, out: Path, dtype: str, pairs: bool) -> None:
    """Write a GGUF file.

    Args:
        model: a Hugging Face directory.
        out: the file to write.
        dtype: the type of the weights of more than one dimension, a key of TYPES.
        pairs: whether the rows of queries and keys are brought into pairs.

    Raises:
        ValueError: the architecture, the positions, the vocabulary or a weight cannot be converted.
    """
    config = json.loads((model / "config.json").read_text())
    architectures = {name: architecture for architecture, name in gguf.MODEL_ARCH_NAMES.items()}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = config["model_type"]
    if kind not in architectures or rope.get("rope_type", "default") != "default":
        raise ValueError(f"this conversion does not support {kind} with these positions")
    writer = gguf.GGUFWriter(out, kind)
    write_sizes(writer, config, rope)
    write_vocabulary(writer, model, config)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": key_heads(config)}
    names = gguf.get_tensor_name_map(architectures[kind], config["num_hidden_layers"])
    for name, stored in tensors(model):
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if gguf_name is None:
            raise ValueError(f"GGUF has no name for the weight {name}")
        projection = next((part for part in gguf_name.split(".")[2:3] if part in heads), None)
        array = interleave_halves(stored, heads[projection]) if pairs and projection else stored
        weight_type = TYPES[dtype] if array.ndim > 1 else TYPES["fp32"]
        data = gguf.quants.quantize(np.ascontiguousarray(array), weight_type)
        writer.add_tensor(gguf_name, data, raw_dtype=weight_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def key_heads(config: Mapping[str, Any]) -> int:
    """Return how many heads the keys have."""
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def write_sizes(writer: Any, config: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    """Write the sizes of the model, and its rotary positions."""
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads(config))
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(0)


def write_vocabulary(writer: Any, model: Path, config: Mapping[str, Any]) -> None:
    """Write the vocabulary of a byte-level BPE. Prompts come as token ids, so its rules of splitting do not matter.

    Raises:
        ValueError: the tokenizer is of another type.
    """
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    if tokenizer["model"]["type"] != "BPE":
        raise ValueError(f"this conversion does not support a vocabulary of type {tokenizer['model']['type']}")
    additions = tokenizer.get("added_tokens", ())
    ids = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in additions}
    special = {token["id"] for token in additions}
    words = {i: word for word, i in ids.items()}

    def token_type(i: int) -> Any:
        if i in special:
            return gguf.TokenType.CONTROL
        return gguf.TokenType.NORMAL if i in words else gguf.TokenType.UNUSED

    size = config["vocab_size"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    template = model / "chat_template.jinja"
    if template.exists():
        writer.add_chat_template(template.read_text(encoding="utf-8"))
    writer.add_token_list([words.get(i, f"[PAD{i}]") for i in range(size)])
    writer.add_token_types([token_type(i) for i in range(size)])
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    end = config.get("eos_token_id")
    end = end[0] if isinstance(end, list) else end
    writer.add_eos_token_id(end or 0)
    writer.add_bos_token_id(config.get("bos_token_id") or end or 0)


def needs_pairs(file: Path) -> bool:
    """Return whether llama.cpp rotates neighbours in this architecture. It knows from the header of the file.

    Raises:
        ValueError: llama.cpp does not load the file.
    """
    settings = llama_cpp.llama_model_default_params()
    settings.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), settings)
    if not model:
        raise ValueError("llama.cpp does not load the file that was written for it")
    kind = llama_cpp.llama_model_rope_type(model)
    llama_cpp.llama_model_free(model)
    return bool(kind == llama_cpp.LLAMA_ROPE_TYPE_NORM)


def main() -> None:
    """Convert the model that the command line names. A half-written file never has the final name."""
    model, out, dtype = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    partial = out.with_suffix(".partial")
    write(model, partial, dtype, pairs=False)
    if needs_pairs(partial):
        write(model, partial, dtype, pairs=True)
    partial.replace(out)


if __name__ == "__main__":
    main()
