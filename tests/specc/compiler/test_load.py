"""The tokenizer and the draft model of a compile, and what is refused of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tiny import save_model

from specc import huggingface
from specc.compiler.load import Tokenizer, check_assistant_tokenizer, encode_prompts, load_assistant, load_tokenizer
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
    texts = ["import os", "def a", "import os", "import os.path"]
    assert [text for text, _ in encode_prompts(texts, tokenizer, 2 * len(ids))] == ["import os", "def a"]


def test_a_model_without_a_tokenizer_is_refused(model: Path, tmp_path: Path) -> None:
    bare = Path(shutil.copytree(model, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*")))
    with pytest.raises(CaptureError, match=r"bare has no .*tokenizer") as error:
        load_tokenizer(options(bare), tmp_path)
    assert str(error.value).endswith("; save one beside the model")  # no line of transformers that begins a list


def test_a_tokenizer_that_is_not_fast_is_refused(model: Path, tmp_path: Path) -> None:
    """ByT5's needs no file at all, and is Python code."""
    slow = Path(shutil.copytree(model, tmp_path / "slow", ignore=shutil.ignore_patterns("tokenizer*")))
    (slow / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    with pytest.raises(CaptureError, match=r"no fast tokenizer, .*; save it again with a tokenizer\.json"):
        load_tokenizer(options(slow), tmp_path / "bundle")


def test_a_draft_model_may_have_more_positions_than_the_bundle(model: Path, target: ModelSpec) -> None:
    assistant = load_assistant(str(model), options(model), replace(target, context=64))
    assert type(assistant).__name__ == "LlamaForCausalLM" and assistant.config.max_position_embeddings == 256


@pytest.mark.parametrize("rows", [500, 600])
def test_a_draft_model_with_other_padding_gets_as_many_rows(rows: int, model: Path, target: ModelSpec) -> None:
    """Models of one family pad one tokenizer's vocabulary to different sizes."""
    assistant = load_assistant(str(model), options(model), replace(target, vocab_size=rows))
    embeddings = assistant.get_input_embeddings().weight
    assert isinstance(embeddings, torch.Tensor) and assistant.config.vocab_size == rows == embeddings.shape[0]
    assert assistant(torch.tensor([[3, 1, 4]])).logits.shape[-1] == rows


def test_a_draft_model_with_the_same_tokenizer_is_accepted(model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(options(model), tmp_path)
    check_assistant_tokenizer(str(model), options(model), tokenizer, ["import os"])


def test_a_draft_model_with_another_tokenizer_of_equal_size_is_refused(model: Path, tmp_path: Path) -> None:
    """Two tokens change places, so each vocabulary has the same tokens and the same size."""
    other = Path(shutil.copytree(model, tmp_path / "other"))
    data = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = data["model"]["vocab"]
    first, second = sorted(vocabulary)[10:12]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")
    tokenizer = load_tokenizer(options(model), tmp_path)
    with pytest.raises(RecipeError, match=r"has another tokenizer than .*; a draft model must share") as error:
        check_assistant_tokenizer(str(other), options(model), tokenizer, [])
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer that has nothing but a vocabulary."""

    numbers: Mapping[str, int]

    def get_vocab(self) -> Mapping[str, int]:
        return self.numbers


@pytest.mark.parametrize(
    ("ours", "theirs", "message"),
    [
        ({"a": 0, "b": 1}, {"a": 0}, "token 'b' is missing there and has the number 1 here"),
        ({"a": 0}, {"a": 0, "b": 1}, "token 'b' has the number 1 there and is missing here"),
        ({"a": 0, "b": 1}, {"a": 1, "b": 0}, "token 'a' has the number 1 there and has the number 0 here"),
    ],
)
def test_a_token_that_one_of_two_tokenizers_lacks_is_missing(
    ours: dict[str, int], theirs: dict[str, int], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface, "load_tokenizer", lambda *_, **__: Vocabulary(theirs))
    with pytest.raises(RecipeError, match=message):
        check_assistant_tokenizer("small", options(tmp_path), cast(Tokenizer, Vocabulary(ours)), [])


def test_a_draft_model_with_fewer_positions_is_refused(target: ModelSpec, model: Path, tmp_path: Path) -> None:
    short = save_model(tmp_path / "short", max_position_embeddings=32)
    with pytest.raises(RecipeError, match="positions for 32 tokens and the bundle for 256; give --max-seq-len 32"):
        load_assistant(str(short), options(model), target)


def test_a_tokenizer_that_panics_on_a_golden_prompt_is_one_line() -> None:
    class Panic(BaseException):
        """What a panic of Rust is in Python."""

    class Panics:
        def encode(self, text: str) -> list[int]:
            raise Panic("called `Option::unwrap()` on a `None` value\nat line 3")

    tokenizer: Any = Panics()
    with pytest.raises(CaptureError, match=r"fails on a golden prompt \(called .* value\); give others by --prompts"):
        encode_prompts(["a"], tokenizer, 64)
