"""A small model like Gemma 3: sliding and full layers, tied embeddings, a tokenizer with byte fallback, a template.

It is saved as transformers saves it, and as the GGUF file that llama.cpp's converter would write of it.
"""

from __future__ import annotations

import json
import string
import textwrap
from itertools import product
from pathlib import Path
from typing import Any

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>"]
WINDOW = 16  # tokens, fewer than the tests' prompts have
LAYERS = 6  # of which the last one is full: GGUF files do not name the pattern, and transformers' own is one in six
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\\n' }}"
    "{{ message['content'] | trim }}{{ '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)


def save_gemma(directory: Path, vocabulary: int = 640) -> Path:
    """Save the model and its tokenizer, with a token for each row of the embeddings."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    end = SPECIAL.index("<end_of_turn>")
    config = Gemma3TextConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=16,
        max_position_embeddings=512,
        sliding_window=WINDOW,
        query_pre_attn_scalar=256,  # that of GGUF files, which do not name it
        eos_token_id=[SPECIAL.index("<eos>"), end],
    )
    torch.manual_seed(0)
    model: Any = Gemma3ForCausalLM(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            narrower = 0.35 if "embed" in name else 1.0
            weight.normal_(std=0.2 if weight.ndim == 1 else narrower * weight.shape[-1] ** -0.5)
    model.generation_config.update(do_sample=True, top_k=64, top_p=0.95, eos_token_id=config.eos_token_id)
    model.to(torch.bfloat16).save_pretrained(directory)
    _tokenizer(vocabulary).save_pretrained(directory)
    return directory


def _tokenizer(size: int) -> Any:
    """Return a BPE of a library module, filled up with pieces that do not come up in it."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import GemmaTokenizer

    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    text = Path(textwrap.__file__).read_text(encoding="utf-8")
    trained.train_from_iterator([text], trainers.BpeTrainer(vocab_size=size - 300, show_progress=False))
    pieces = json.loads(trained.to_str())["model"]
    tokens = dict.fromkeys([*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *pieces["vocab"]])
    for letters in product(string.ascii_lowercase, repeat=4):
        if len(tokens) >= size:
            break
        tokens.setdefault("▁" + "".join(letters))
    merges: Any = [tuple(pair) for pair in pieces["merges"]]
    tokenizer: Any = GemmaTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=merges,
        add_bos_token=True,
        extra_special_tokens=SPECIAL[5:],
        chat_template=TEMPLATE,
    )
    return tokenizer


def write_gemma_gguf(directory: Path, file: Path) -> Path:
    """Write what `save_gemma` saved as a GGUF file of BF16 weights. Norms have 1 added, as llama.cpp expects."""
    import gguf
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    config = model.config
    pieces = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    ranks = {"".join(pair): rank for rank, pair in enumerate(pieces["merges"])}
    tokens = sorted(pieces["vocab"], key=pieces["vocab"].__getitem__)
    kinds = dict.fromkeys(SPECIAL, gguf.TokenType.CONTROL) | {"<unk>": gguf.TokenType.UNKNOWN}
    kinds |= {f"<0x{byte:02X}>": gguf.TokenType.BYTE for byte in range(256)}
    writer = gguf.GGUFWriter(file, "gemma3")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["full_attention"]["rope_theta"])
    writer.add_sliding_window(config.sliding_window)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([-float(ranks.get(token, len(ranks))) for token in tokens])
    writer.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in tokens])
    writer.add_bos_token_id(SPECIAL.index("<bos>"))
    writer.add_eos_token_id(SPECIAL.index("<end_of_turn>"))
    writer.add_unk_token_id(SPECIAL.index("<unk>"))
    writer.add_pad_token_id(SPECIAL.index("<pad>"))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(TEMPLATE)
    names: Any = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # It is the table of embeddings.
        data = value.numpy() + (1.0 if name.endswith("norm.weight") else 0.0)
        kind = gguf.GGMLQuantizationType.F32 if data.ndim == 1 else gguf.GGMLQuantizationType.BF16
        writer.add_tensor(names.get_name(name, (".weight",)), gguf.quants.quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
