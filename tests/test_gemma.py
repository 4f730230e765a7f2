"""A model like Gemma 3, from its checkpoint to text: windows, byte fallback, chat, GGUF, and a large vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from gemma import SPECIAL, WINDOW, save_gemma, write_gemma_gguf
from quick_compile import compile_quickly
from transformers import AutoModelForCausalLM, AutoTokenizer

import specc
from specc.compiler import Options
from specc.exactness.replay import prove
from specc.huggingface import load_model, load_tokenizer
from specc.runtime.bundle import open_bundle

pytestmark = [pytest.mark.torch, pytest.mark.model]

NEW = 24  # tokens
LONG = "def wrap(text, width=70):\n    return fill(text, width)\n" * 4  # many windows of text, which repeats itself
CHAT = [{"role": "user", "content": "Was ist ein Bäumchen 木 🌳?"}]


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory, translations: None) -> Path:
    return save_gemma(tmp_path_factory.mktemp("gemma") / "model")


def compiled(model: Path, **options: Any) -> Path:
    """Compile a bundle beside the model."""
    prompts = model.parent / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in (LONG, "Ü木")), encoding="utf-8")
    output = model.with_suffix(".specc")
    fixed: dict[str, Any] = {"prompts": prompts, "golden_tokens": 12, "max_seq_len": 256, "overwrite": True}
    compile_quickly(Options(model=str(model), output=output, **fixed | options))
    return output


@torch.no_grad()
def greedy(directory: Path, ids: list[int]) -> list[int]:
    """Decode in transformers, without a cache."""
    model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokens = list(ids)
    for _ in range(NEW):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(ids) :]


@pytest.fixture(scope="module")
def bundle(gemma: Path) -> Path:
    return compiled(gemma, recipes=("plain", "prompt-lookup"))


@pytest.mark.parametrize("prompt", [LONG, CHAT], ids=["long", "chat"])
def test_the_tokens_and_the_text_are_those_of_transformers(prompt: Any, gemma: Path, bundle: Path) -> None:
    tokenizer: Any = AutoTokenizer.from_pretrained(gemma)
    if prompt is CHAT:
        ids = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=True)["input_ids"]
    else:
        ids = tokenizer.encode(prompt)
    assert len(ids) > WINDOW
    expected = greedy(gemma, ids)
    with specc.load(bundle) as session:
        assert session.text.encode(prompt) == ids
        for recipe in ("plain", "prompt-lookup"):
            got = session.generate(prompt, max_new_tokens=NEW, temperature=0.0, ignore_eos=True, recipe=recipe)
            assert got.token_ids == expected
            assert got.text == tokenizer.decode(expected, skip_special_tokens=True)


def test_its_golden_outputs_and_sampling_defaults_are_in_the_bundle(bundle: Path) -> None:
    counts = prove(bundle).counts
    assert (counts.identical, counts.diverged) == (4, 0)
    spec = open_bundle(bundle).manifest.model
    assert spec.eos_token_ids == (SPECIAL.index("<eos>"), SPECIAL.index("<end_of_turn>"))
    assert spec.generation_config == {"do_sample": True, "top_k": 64, "top_p": 0.95}


def test_its_gguf_file_is_the_model(gemma: Path) -> None:
    """Tokens, weights, windows and rotations are those of the checkpoint that it was written from."""
    pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    file = write_gemma_gguf(gemma, gemma.parent / "model.gguf")
    tokenizer, ours = load_tokenizer(str(file)), AutoTokenizer.from_pretrained(gemma)
    for text in (LONG, "Ü 木 🌳", "  two  spaces\n\n", "<start_of_turn>user\nhi<end_of_turn>\n"):
        assert tokenizer.encode(text) == ours.encode(text)
    assert tokenizer.chat_template == ours.chat_template
    model, original = load_model(str(file)), load_model(str(gemma))
    ids = torch.tensor([ours.encode(LONG)])
    torch.testing.assert_close(model(ids).logits, original(ids).logits)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, "int4"])
def test_every_default_recipe_decodes_a_vocabulary_of_262144(dtype: str | None, tmp_path: Path) -> None:
    """The table of embeddings stands once in the bundle, and its product once in each type of weights."""
    rows, width = 262_144, 64
    model = save_gemma(tmp_path / "model", rows)
    output = compiled(model, dtype=dtype)
    proof = prove(output, exact=dtype is not None)
    assert proof.passed and len({result.recipe for result in proof.replayed}) >= (3 if dtype else 10)
    table, narrow = 4 * rows * width, rows * (width // 2 + 4 * width // 32)
    assert (output / "weights.safetensors").stat().st_size < 1.05 * (table + narrow)
    assert (output / "golden.jsonl").stat().st_size < 10_000
