"""Normalisers that would fill the memory are refused when a bundle is opened; those of models are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from listed import bundle_of
from tokenizers import Regex, normalizers
from toys import tokenizer

from specc.runtime.errors import BundleError
from specc.runtime.normalizer_check import check
from specc.runtime.text import Text

DOUBLE = normalizers.Replace(Regex("(.)"), "aa")
LLAMA = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
NESTED = normalizers.Sequence([normalizers.Sequence([DOUBLE] * 5), normalizers.Sequence([DOUBLE] * 5)])


@pytest.mark.parametrize("normalizer", [normalizers.Sequence([DOUBLE] * 40), NESTED, normalizers.Prepend("a" * 10_000)])
def test_a_normaliser_that_grows_the_text_without_end_is_refused_in_one_line(normalizer: Any, tmp_path: Path) -> None:
    growing = tokenizer()
    growing.normalizer = normalizer
    growing.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read \(its normaliser makes \d+ characters") as e:
        Text(bundle_of(tmp_path))
    assert str(e.value).isprintable()


@pytest.mark.parametrize(
    "normalizer", [None, LLAMA, normalizers.NFKC(), normalizers.Strip(), normalizers.Replace("a", "")]
)
def test_normalisers_of_models_pass(normalizer: Any) -> None:
    check(normalizer)
