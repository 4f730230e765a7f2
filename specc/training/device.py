"""The device of a training: the processor, or a GPU.

A training runs within `with device:`, where torch makes all new tensors on that device.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from specc.huggingface import load_model
from specc.runtime.errors import HeadError
from specc.training import processes

AUTO = "auto"
BATCH, GPU_BATCH = 1536, 12288  # tokens of an update by default; a GPU needs more to be busy


def device_named(name: str) -> torch.device:
    """Return the device of a name.

    Args:
        name: `cpu`, `cuda`, `cuda:1` and so on; `auto` takes a GPU if torch finds one. Of several processes that train
            together, each takes a GPU of its own.

    Raises:
        HeadError: there is no such device, or it is named for several processes.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    ours = processes.place()
    if ours is not None and name in (AUTO, "cuda") and count:
        name = f"cuda:{ours.number_here}"
    elif ours is not None and name.startswith("cuda:"):
        raise HeadError(f"several processes cannot train on {name} together; leave --device out, and each has its GPU")
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
    """Return the name of the GPU that is in use, and how many processes have one; empty for the processor."""
    if not on_gpu():
        return ""
    name = torch.cuda.get_device_name(current_device())
    return name if processes.count() == 1 else f"{processes.count()} x {name}"


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
