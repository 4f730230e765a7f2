"""What the manifest keeps of a checkpoint's `generation_config.json`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import GenerationConfig, PreTrainedModel

from specc.huggingface.generation_config import NEUTRAL, choice_of_tokens

pytestmark = pytest.mark.torch


def kept(directory: Path, **fields: Any) -> dict[str, Any]:
    """Return what is kept of a file with these fields, as transformers reads it."""
    (directory / "generation_config.json").write_text(json.dumps(fields), encoding="utf-8")
    config: Any = SimpleNamespace(generation_config=GenerationConfig.from_pretrained(directory))
    return choice_of_tokens(config)


def test_what_the_file_says_of_the_choice_is_kept(tmp_path: Path) -> None:
    fields = {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0.05,
        "repetition_penalty": 1.1,
    }
    assert kept(tmp_path, **fields, eos_token_id=[1, 2], max_length=4096) == fields


def test_what_the_file_does_not_name_is_left_out(tmp_path: Path) -> None:
    """The library itself has a top_k of 50."""
    assert kept(tmp_path, do_sample=True) == {"do_sample": True}
    assert kept(tmp_path, bos_token_id=1) == {}


def test_values_that_change_nothing_are_left_out(tmp_path: Path) -> None:
    assert kept(tmp_path, do_sample=False, temperature=1.0, repetition_penalty=1.0, suppress_tokens=[]) == {}


def test_a_whole_number_is_a_number_with_a_point(tmp_path: Path) -> None:
    value = kept(tmp_path, do_sample=True, temperature=2)["temperature"]
    assert isinstance(value, float) and value == 2


def test_a_model_without_the_file_asks_for_nothing() -> None:
    model: Any = SimpleNamespace()
    assert choice_of_tokens(model) == {}


def test_every_kept_field_is_one_of_transformers() -> None:
    fields = set(GenerationConfig().to_dict())
    assert set(NEUTRAL) <= fields, set(NEUTRAL) - fields


@pytest.mark.model
def test_a_compile_writes_it_into_the_manifest(tmp_path: Path, model: Path, translations: None) -> None:
    from specc.huggingface import describe, load_model

    instance: PreTrainedModel = load_model(str(model))
    instance.generation_config = GenerationConfig(do_sample=True, temperature=0.7)
    assert describe(instance, "a model").generation_config == {"do_sample": True, "temperature": 0.7}
