"""Adapters are merged into the weights of their base."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from graphs import model

peft = pytest.importorskip("peft")

from specc.huggingface import load_model  # noqa: E402
from specc.runtime.errors import CaptureError, SpeccWarning  # noqa: E402

pytestmark = pytest.mark.torch


def save_adapter(directory: Path, target: str = "q_proj") -> tuple[Path, torch.Tensor]:
    """Save an adapter of a small Llama, and return what the adapted model says of some tokens."""
    config = peft.LoraConfig(r=4, lora_alpha=32, target_modules=[target], task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(load_model(str(directory / "base")), config)
    torch.manual_seed(1)
    for name, value in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(value, std=0.1)
    adapted.save_pretrained(directory / "adapter")
    with torch.no_grad():
        return directory / "adapter", adapted(torch.tensor([[3, 1, 4, 1, 5]])).logits


def test_a_merged_adapter_gives_the_logits_of_the_adapted_model(tmp_path: Path) -> None:
    model("llama").save_pretrained(tmp_path / "base")
    adapter, expected = save_adapter(tmp_path)
    merged = load_model(str(tmp_path / "base"), adapter=adapter)
    plain = load_model(str(tmp_path / "base"))
    with torch.no_grad():
        ids = torch.tensor([[3, 1, 4, 1, 5]])
        torch.testing.assert_close(merged(ids).logits, expected, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(plain(ids).logits, expected, atol=1e-2)


def test_an_adapter_of_another_model_is_one_line(tmp_path: Path) -> None:
    model("llama").save_pretrained(tmp_path / "base")
    adapter, _ = save_adapter(tmp_path)
    model("gpt2").save_pretrained(tmp_path / "other")
    with pytest.raises(CaptureError, match="does not fit GPT2LMHeadModel") as error:
        load_model(str(tmp_path / "other"), adapter=adapter)
    assert "\n" not in str(error.value)


def test_a_directory_without_an_adapter_is_refused(tmp_path: Path) -> None:
    model("llama").save_pretrained(tmp_path / "base")
    with pytest.raises(CaptureError, match=r"has no adapter_config\.json; name a directory that peft wrote"):
        load_model(str(tmp_path / "base"), adapter=tmp_path)


def test_an_adapter_beside_whole_weights_is_not_applied_unless_it_is_named(tmp_path: Path) -> None:
    """Transformers itself applies one that it finds."""
    model("llama").save_pretrained(tmp_path / "base")
    adapter, expected = save_adapter(tmp_path)
    plain = load_model(str(tmp_path / "base"))
    for file in adapter.iterdir():
        file.rename(tmp_path / "base" / file.name)
    with pytest.warns(SpeccWarning, match="holds an adapter, which is not applied"):
        beside = load_model(str(tmp_path / "base"))
    with pytest.warns(SpeccWarning):
        merged = load_model(str(tmp_path / "base"), adapter=tmp_path / "base")
    with torch.no_grad():
        ids = torch.tensor([[3, 1, 4, 1, 5]])
        assert torch.equal(beside(ids).logits, plain(ids).logits)
        torch.testing.assert_close(merged(ids).logits, expected, atol=1e-4, rtol=1e-4)
