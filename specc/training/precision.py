"""Choose the type of numbers in which this machine multiplies matrices fastest."""

from __future__ import annotations

import time
from functools import cache

import torch

SIZE = 512
GAIN = 1.5  # bf16 must be so many times as fast, since it rounds


@cache
def fast_type() -> torch.dtype:
    """Return bf16 if products in it are clearly faster here than in fp32; else fp32."""
    return torch.bfloat16 if GAIN * _seconds(torch.bfloat16) < _seconds(torch.float32) else torch.float32


def _seconds(kind: torch.dtype) -> float:
    x = torch.ones(SIZE, SIZE, dtype=kind)
    times = []
    for _ in range(4):
        start = time.process_time()
        x @ x
        times.append(time.process_time() - start)
    return min(times)
