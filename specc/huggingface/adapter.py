"""Merge a LoRA adapter into the weights of its base model, by peft."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from specc.runtime.errors import CaptureError, first_line
from specc.runtime.extras import package


def merge_adapter(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """Merge an adapter into a model.

    Args:
        model: the base model.
        directory: what `PeftModel.save_pretrained` wrote: `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
        The base model with changed weights and no adapter.

    Raises:
        CaptureError: peft is not installed, the directory holds no adapter in safetensors, or it belongs to another
            model.
    """
    if not (directory / "adapter_config.json").is_file():
        raise CaptureError(f"{directory} has no adapter_config.json; name a directory that peft wrote")
    if not (directory / "adapter_model.safetensors").is_file():
        raise CaptureError(f"{directory} has no adapter_model.safetensors; save the adapter again, without pickles")
    try:
        from peft import PeftModel
    except ImportError as e:
        raise CaptureError(f"--adapter needs peft, which is not installed; pip install {package('adapter')}") from e
    try:
        adapted: Any = PeftModel.from_pretrained(model, str(directory))
        merged: PreTrainedModel = adapted.merge_and_unload()
    except Exception as e:
        raise CaptureError(f"the adapter {directory} does not fit {type(model).__name__}: {first_line(e)}") from e
    return merged
