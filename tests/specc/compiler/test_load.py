"""The tokenizer and the draft model of a compile, and what is refused of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import save_model

from specc.compiler.load import encode_prompts, load_assistant, load_tokenizer
from specc.compiler.options import Options
from specc.huggingface import describe, load_model
from specc.runtime.errors import CaptureError, RecipeError
from specc.runtime.manifest import ModelSpec

pytestmark = [pytest.mark.torch, pytest.mark.model]


@pytest.fixture(scope="module")
def target(model: Path) -> ModelSpec:
    return describe(load_model(str(model)), str(model))


def options(model: Path) -> Options:
    return Options(model=str(model), output="out")


def test_the_tokenizers_files_go_into_the_bundle(model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(options(model), tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    ids = tokenizer.encode("import os")
    assert encode_prompts(["import os", ""], tokenizer, 2 * len(ids))[0] == ("import os", ids)
    assert encode_prompts(["import os"], tokenizer, 4) == [("import os", ids[:2])]


def test_a_model_without_a_tokenizer_is_refused(model: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*")))
    with pytest.raises(CaptureError, match=r"bare has no .*tokenizer"):
        load_tokenizer(options(bare), tmp_path)


def test_a_tokenizer_that_is_not_fast_is_refused(model: Path, tmp_path: Path) -> None:
    """ByT5's needs no file at all, and is Python code."""
    slow = Path(shutil.copytree(model, tmp_path / "slow", ignore=shutil.ignore_patterns("tokenizer*")))
    (slow / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    with pytest.raises(CaptureError, match=r"no fast tokenizer, .*; save it again with a tokenizer\.json"):
        load_tokenizer(options(slow), tmp_path / "bundle")


def test_a_draft_model_gets_the_context_of_the_target(model: Path, target: ModelSpec) -> None:
    short = replace(target, context=64)
    loaded, spec = load_assistant(str(model), options(model), short)
    assert spec.context == 64 and spec.source == str(model)
    assert type(loaded).__name__ == "LlamaForCausalLM"


def test_a_draft_model_of_another_vocabulary_is_refused(model: Path, target: ModelSpec) -> None:
    with pytest.raises(RecipeError, match=r"a vocabulary of 512 and .* one of 600; a draft model must share"):
        load_assistant(str(model), options(model), replace(target, vocab_size=600))


def test_a_draft_model_with_fewer_positions_is_refused(target: ModelSpec, model: Path, tmp_path: Path) -> None:
    short = save_model(tmp_path / "short", max_position_embeddings=32)
    with pytest.raises(RecipeError, match="positions for 32 tokens and the bundle for 256; give --max-seq-len 32"):
        load_assistant(str(short), options(model), target)
