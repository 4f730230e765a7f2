"""The device of a training: the processor, or a GPU.

A training runs within `with device:`, where torch makes all new tensors on that device.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from specc.huggingface import load_model
from specc.runtime.errors import HeadError

AUTO = "auto"
BATCH, GPU_BATCH = 1536, 12288  # tokens of an update by default; a GPU needs more to be busy


def device_named(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: `cpu`, `cuda`, `cuda:1` and so on; `auto` takes a GPU if torch finds one.

    Raises:
        HeadError: there is no such device.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == AUTO:
        return torch.device("cuda" if count else "cpu")
    names = ["cpu", *(["cuda"] if count else []), *(f"cuda:{index}" for index in range(count))]
    if name not in names:
        raise HeadError(f"there is no device {name!r} to train on; torch {torch.__version__} has {', '.join(names)}")
    return torch.device(name)


def current_device() -> torch.device:
    """Return the device on which new tensors are made."""
    return torch.get_default_device()


def load_here(source: str) -> PreTrainedModel:
    """Load a model, see `load_model`, onto the device in use."""
    with torch.device("cpu"):
        model = load_model(source)
    untyped: Any = model  # transformers' types lack the method
    here: PreTrainedModel = untyped.to(current_device())
    return here


def on_gpu() -> bool:
    """Tell whether new tensors are made on a GPU."""
    return current_device().type != "cpu"


def gpu_name() -> str:
    """Return the name of the GPU that is in use; empty for the processor."""
    return torch.cuda.get_device_name(current_device()) if on_gpu() else ""


def free_memory() -> int:
    """Return the bytes of the GPU in use that are free."""
    torch.cuda.empty_cache()  # Give the GPU the memory back that torch keeps for its next tensors.
    return torch.cuda.mem_get_info(current_device())[0]


def default_batch(device: torch.device) -> int:
    """Return the tokens of an update, if the user does not say."""
    return BATCH if device.type == "cpu" else GPU_BATCH


def generator(seed: int) -> torch.Generator:
    """Return random numbers for tensors on the device in use."""
    return torch.Generator(current_device()).manual_seed(seed)
