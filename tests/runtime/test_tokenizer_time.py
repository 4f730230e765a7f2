"""A tokenizer whose patterns take very long is stopped, and the patterns of real models are not taken for such."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from listed import bundle_of
from tokenizers import Regex, normalizers, pre_tokenizers
from toys import tokenizer

from specc.runtime import tokenizer_time
from specc.runtime.errors import PromptError
from specc.runtime.text import Text
from specc.runtime.tokenizer_time import encode_in_time, may_be_slow

SLOW = [
    "(a+)+$",
    r"(\w+\s?)+$",
    r"(.|\s)*\Z",
    "(x|x)*y",
    "(a{2,})+b",
    r".*.*.*=",
    r"((\w)*)*[,;]",
    r"[^\]]+[)]*x+y",
    r"(a|[(b)]){3,}c",
]
# As GPT-2, Llama 3, Qwen 2.5, DeepSeek and o200k divide text.
FAST = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}",
    r"[\p{Han}]+|[^[\p{Han}(+)*]]+",
]  # fmt: skip


@pytest.mark.parametrize("pattern", SLOW)
def test_patterns_that_can_go_back_without_end_are_known(pattern: str) -> None:
    divided, normalised = tokenizer(), tokenizer()
    divided.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated")])
    normalised.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(pattern), "")])
    assert may_be_slow(divided) and may_be_slow(normalised)


@pytest.mark.parametrize("pattern", FAST)
def test_patterns_of_models_are_fast(pattern: str) -> None:
    divided = tokenizer()
    divided.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    assert not may_be_slow(divided) and not may_be_slow(tokenizer())


def test_a_tokenizer_that_takes_too_long_is_left_and_the_prompt_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenizer_time, "SECONDS", 0.3)
    slow = tokenizer()
    slow.pre_tokenizer = pre_tokenizers.Split(Regex("(b+)+$"), "isolated")
    slow.save(str(tmp_path / "tokenizer.json"))
    text, start = Text(bundle_of(tmp_path)), time.monotonic()
    with pytest.raises(PromptError, match=r"fails on this prompt: its patterns take more than 0\.3 s; pass token ids"):
        text.encode(("b" * 21 + "c ") * 40)
    assert time.monotonic() - start < 5


def test_a_tokenizer_in_time_gives_the_tokens_that_it_gives_otherwise(tmp_path: Path) -> None:
    plain, slow = tokenizer(), tokenizer()
    slow.pre_tokenizer = pre_tokenizers.Split(Regex("(b+)+c"), "isolated")
    text = "bbc abc cab"
    assert encode_in_time(slow, text, special=True) == slow.encode(text).ids
    assert encode_in_time(plain, text, special=False) == plain.encode(text, add_special_tokens=False).ids
