"""A model small enough to compile in a test."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

MODEL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True, "bos_token_id": None,
}  # fmt: skip
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"


def save_model(directory: Path, **config: Any) -> Path:
    """A small Llama with random weights, whose choices are clear, and a byte-level BPE of a library module."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    text = Path(textwrap.__file__).read_text(encoding="utf-8")
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(text.splitlines(True), vocab_size=500, special_tokens=["<end>"], show_progress=False)
    fast: Any = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._tokenizer, eos_token="<end>", chat_template=TEMPLATE
    )
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**MODEL | {"eos_token_id": fast.eos_token_id} | config))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[-1] ** -0.5)
    model.save_pretrained(directory)
    return directory
