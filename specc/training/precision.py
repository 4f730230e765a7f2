"""Choose the type of numbers in which the device in use multiplies matrices fastest."""

from __future__ import annotations

import time
from functools import cache

import torch

from specc.training import processes
from specc.training.device import on_gpu

SIZE = 512
GAIN = 1.5  # bf16 must be so many times as fast, since it rounds


def fast_type() -> torch.dtype:
    """Return bf16 if products in it are clearly faster than in fp32 on the device in use; else fp32."""
    if on_gpu():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return processes.agree(_fast_on_processor())


@cache
def _fast_on_processor() -> torch.dtype:
    return torch.bfloat16 if GAIN * _seconds(torch.bfloat16) < _seconds(torch.float32) else torch.float32


def _seconds(kind: torch.dtype) -> float:
    x = torch.ones(SIZE, SIZE, dtype=kind)
    times = []
    for _ in range(4):
        start = time.process_time()
        x @ x
        times.append(time.process_time() - start)
    return min(times)
