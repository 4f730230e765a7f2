"""`toys`, `chance` and `shell` are importable from every test; hypothesis tries the same examples on every machine.

`model` is a tiny model's directory, `bundle` the same compiled: once a session, for the tests that ask for them.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import specc  # noqa: F401  before tests/ is on the path, where a folder has this name

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("specc", derandomize=True, deadline=None)
settings.load_profile("specc")

MODEL = {
    "vocab_size": 512, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "tie_word_embeddings": True, "bos_token_id": None,
}  # fmt: skip
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}<assistant>"
PROMPTS = ("def wrap(text, width=70):\n    return", "import os, sys\nimport os, sys\nimport", "Ünïcode: ")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's cache directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def save_model(directory: Path, **config: Any) -> Path:
    """A small Llama with random weights, whose choices are clear, and a byte-level BPE trained on the standard library."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    text = Path(textwrap.__file__).read_text(encoding="utf-8")
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(text.splitlines(True), vocab_size=500, special_tokens=["<end>"], show_progress=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer._tokenizer, eos_token="<end>", chat_template=TEMPLATE)
    fast.save_pretrained(directory)
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**MODEL | {"eos_token_id": fast.eos_token_id} | config))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(std=weight.shape[-1] ** -0.5)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny model."""
    return save_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def bundle(model: Path) -> Path:
    """The tiny model compiled with three recipes. Tests copy it before they change a file."""
    from specc.compiler import Options, compile_bundle

    prompts = model.parent / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS), encoding="utf-8")
    output, recipes = model.parent / "tiny.specc", ("plain", "prompt-lookup", "early-exit")
    compile_bundle(Options(str(model), output, recipes, prompts=prompts, golden_tokens=24))
    return output
