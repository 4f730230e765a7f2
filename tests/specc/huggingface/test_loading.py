"""Checkpoints: which are loaded, which are refused, and how they are described."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from graphs import model
from safetensors.torch import load_file, save_file

from specc.huggingface import describe, load_model
from specc.runtime.errors import CaptureError

pytestmark = pytest.mark.torch


def save(directory: Path, **changes: Any) -> Path:
    """Save a model, with changes to its configuration."""
    model("llama").save_pretrained(directory)
    rewrite(directory / "config.json", **changes)
    return directory


def rewrite(file: Path, **changes: Any) -> None:
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | changes))


def reweigh(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def complaint(source: Path | str) -> str:
    with pytest.raises(CaptureError) as error:
        load_model(str(source))
    assert "\n" not in str(error.value) and str(source) in str(error.value)
    return str(error.value)


def test_a_saved_model_loads_in_fp32(tmp_path: Path) -> None:
    model("llama").float().save_pretrained(tmp_path)
    instance = load_model(str(tmp_path))
    assert instance.dtype == torch.float32 and not instance.training
    torch.testing.assert_close(instance.lm_head.weight, model("llama").lm_head.weight)


def test_a_directory_that_is_missing_or_without_a_configuration_is_refused(tmp_path: Path) -> None:
    assert "name a model directory, a .gguf file, or a hub id" in complaint(tmp_path / "absent")
    assert "has no config.json; name a directory that save_pretrained wrote" in complaint(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "cannot read the configuration" in complaint(tmp_path)


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    rewrite(tmp_path / "config.json", model_type="t5")
    assert "is an encoder-decoder (t5); specc compiles decoder-only models" in complaint(tmp_path)


def test_a_model_type_that_is_not_a_language_model_is_refused(tmp_path: Path) -> None:
    rewrite(tmp_path / "config.json", model_type="nosuch")
    assert "`nosuch`" in complaint(tmp_path)
    rewrite(tmp_path / "config.json", model_type="vit")
    message = complaint(tmp_path)
    assert f"'vit', which is not a causal language model of transformers {transformers.__version__}; upgrade" in message


def test_weights_as_pickles_are_never_read(tmp_path: Path) -> None:
    model("llama").config.save_pretrained(tmp_path)
    torch.save(model("llama").state_dict(), tmp_path / "pytorch_model.bin")
    message = complaint(tmp_path)
    assert "as a pickle (pytorch_model.bin), which can run code" in message


@pytest.mark.parametrize("method", ["awq", "gptq", "nosuch"])
def test_weights_that_no_library_widens_on_a_cpu_are_refused(method: str, tmp_path: Path) -> None:
    message = complaint(save(tmp_path, quantization_config={"quant_method": method, "bits": 4}))
    assert f"is quantised by {method}, and no kept library widens that" in message
    assert "compile the original checkpoint" in message


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path: Path) -> None:
    for change in (lambda t: t.pop("model.norm.weight"), lambda t: t.update({"model.norm.weight": torch.ones(3)})):
        reweigh(save(tmp_path), change)
        assert "lacks 1 of its weights, such as model.norm.weight" in complaint(tmp_path)


def test_a_truncated_file_of_weights_is_refused(tmp_path: Path) -> None:
    file = save(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    assert "cannot load" in complaint(tmp_path)


def test_remote_code_is_run_with_the_flag_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = {"AutoConfig": "mine.C", "AutoModelForCausalLM": "mine.M"}
    directory, trace = save(tmp_path / "m", model_type="mine", auto_map=code), tmp_path / "trace"
    (directory / "mine.py").write_text(
        f"open({str(trace)!r}, 'w')\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class C(LlamaConfig):\n    model_type = 'mine'\n"
        "class M(LlamaForCausalLM):\n    config_class = C\n"
    )
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    assert "--trust-remote-code runs its code, if you have read it" in complaint(directory)
    rewrite(directory / "config.json", model_type="llama")
    assert type(load_model(str(directory))).__module__ == "transformers.models.llama.modeling_llama"
    assert not trace.exists()
    assert type(load_model(str(directory), trust_remote_code=True)).__name__ == "M"
    assert trace.exists()


def test_the_context_is_the_models_or_less() -> None:
    assert describe(model("llama"), "here").context == 128
    assert describe(model("llama"), "here", 64).context == 64
    with pytest.raises(CaptureError, match=r"max_seq_len 129 does not fit here; give 16\.\.128"):
        describe(model("llama"), "here", 129)


def test_the_context_ends_where_rotary_frequencies_change() -> None:
    """Rows in the cache were rotated by the frequencies of the shorter text, so these may not change."""
    assert describe(model("phi3-longrope"), "here").context == 64
    with pytest.raises(CaptureError, match=r"100 does not fit here \(longrope .* after 64 tokens.*; give 16\.\.64"):
        describe(model("phi3-longrope"), "here", 100)
