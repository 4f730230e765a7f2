"""Lanes that this machine has no memory for are refused before the model is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from shell import refused
from transformers import FalconConfig, GPT2Config, LlamaConfig

import specc as package
from specc import compiler
from specc.compiler import compile_bundle, lanes_memory
from specc.compiler.lanes_memory import check_lanes, row_bytes
from specc.compiler.options import Options
from specc.compiler.plans import MARGIN
from specc.huggingface import read_text_config
from specc.runtime.errors import CaptureError, RecipeError
from specc.runtime.sequence import TARGET

pytestmark = pytest.mark.torch


def test_a_row_has_the_keys_and_values_of_all_layers() -> None:
    llama = LlamaConfig(num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=2, hidden_size=64, head_dim=16)
    assert row_bytes(llama, half=False) == 2 * row_bytes(llama, half=True) == 2 * 3 * 2 * 16 * 4
    assert row_bytes(GPT2Config(n_layer=2, n_head=4, n_embd=32), half=False) == 2 * 2 * 4 * 8 * 4
    falcon = FalconConfig(num_hidden_layers=2, num_attention_heads=4, hidden_size=32, multi_query=True)
    assert row_bytes(falcon, half=False) == 2 * 2 * 1 * 8 * 4


@pytest.mark.model
class TestModel:
    def test_the_message_has_the_number_that_fits_and_nothing_is_loaded(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It counts what the rows of a bundle take."""
        options = Options(model=str(model), output=tmp_path / "out.specc", lanes=6, max_seq_len=64)
        config = read_text_config(str(model))
        lane = (64 + MARGIN) * row_bytes(config, half=False)
        monkeypatch.setattr(lanes_memory, "free_memory", lambda: 6 * lane)
        check_lanes(options)
        check_lanes(replace(options, lanes=1))
        monkeypatch.setattr(lanes_memory, "free_memory", lambda: 6 * lane - 1)
        monkeypatch.setattr(compiler, "load_model", lambda *_: pytest.fail("the model was loaded"))
        with pytest.raises(RecipeError, match=r"^lanes is 6, and 5 fit \(a lane of 64 tokens .*; give at most 5, or"):
            compile_bundle(options)
        assert not Path(options.output).exists()

    def test_lanes_beyond_what_a_block_may_have_are_refused_with_that_number(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for free in (None, 2**50):
            monkeypatch.setattr(lanes_memory, "free_memory", lambda free=free: free)
            with pytest.raises(RecipeError, match=r"^lanes is 1000, and 256 fit.*; give at most 256"):
                check_lanes(Options(model=str(model), output=tmp_path / "out.specc", lanes=1000))

    def test_the_command_line_says_it_in_one_line(self, model: Path, tmp_path: Path) -> None:
        assert "lanes is 1000, and " in refused("compile", model, "-o", tmp_path / "out.specc", "--lanes", "1000")

    def test_positions_that_the_model_does_not_have_are_refused_there_too(self, model: Path, tmp_path: Path) -> None:
        with pytest.raises(CaptureError, match="max_seq_len 99999999 does not fit"):
            check_lanes(Options(model=str(model), output=tmp_path / "o", lanes=2, max_seq_len=99999999))

    def test_a_row_is_as_large_as_in_a_bundle(self, bundle: Path) -> None:
        with package.load(bundle) as instance:
            spec = instance.bundle.manifest.caches[TARGET]
            source = instance.bundle.manifest.model.source
        assert spec.bytes == spec.capacity * row_bytes(read_text_config(source), half=False)
