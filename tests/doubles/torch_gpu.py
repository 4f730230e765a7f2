"""A double of torch whose GPU is the CPU."""

from __future__ import annotations

from typing import Any

import torch

PLACING = ("zeros", "zeros_like", "tensor", "asarray")  # the functions that take a device


class TorchOnGpu:
    """A torch module that places tensors on "cuda", which is the CPU. Everything else is torch's own.

    Attributes:
        devices: the devices that tensors were placed on.
        pinned: the number of tensors in pinned memory.
        waits: how often the stream was waited for.
    """

    OutOfMemoryError = torch.OutOfMemoryError

    def __init__(self, free_bytes: int = 8 << 30, total_bytes: int = 8 << 30) -> None:
        self.devices: set[str] = set()
        self.pinned = self.waits = 0
        self.memory = free_bytes, total_bytes
        self.cuda = self
        self.backends = torch.backends

    def __getattr__(self, name: str) -> Any:
        function = getattr(torch, name)
        if name not in PLACING:
            return function

        def placed(*args: Any, device: str | None = None, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
            if device is not None:
                self.devices.add(device)
            self.pinned += pin_memory
            value: torch.Tensor = function(*args, **kwargs)
            return value.clone() if device else value

        return placed

    def get_device_capability(self) -> tuple[int, int]:
        return 9, 0

    def mem_get_info(self) -> tuple[int, int]:
        return self.memory

    def current_stream(self) -> Any:
        return self

    def synchronize(self) -> None:
        self.waits += 1
