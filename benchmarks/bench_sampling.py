"""Measure what sampling costs: the time from logits to a token, for one slot.

    python benchmarks/bench_sampling.py

It prints the median processor time of a slot in milliseconds, for vocabularies of several sizes, for logits that are
peaked and flat, and for each kind of cut. The time is that of one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from specc.cli import console
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling

VOCABULARIES = (49_152, 152_064, 262_144)
CUTS = {"none": {}, "top_p 0.95": {"top_p": 0.95}, "top_k 50": {"top_k": 50}, "both": {"top_p": 0.95, "top_k": 50}}
SPREADS = {"peaked": 4.0, "flat": 0.5}  # standard deviations of logits
ROUNDS = 31


def milliseconds(run: Callable[[], object]) -> float:
    """Return the median processor time of a call, after two that warm up."""
    seconds = []
    for _ in range(ROUNDS + 2):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return median(seconds[2:]) * 1000


def slot_milliseconds(sampling: Sampling, logits_V: np.ndarray) -> float:
    """Return the time from logits to a token."""
    return milliseconds(lambda: sampling.rng.pick(sampling.probs(logits_V)))


def main() -> None:
    """Measure and print the table."""
    table = console.table("cut", "logits", *(f"{size:,}" for size in VOCABULARIES))
    rng = np.random.default_rng(0)
    logits = {size: rng.normal(size=size).astype(np.float32) for size in VOCABULARIES}
    for cut, options in CUTS.items():
        for name, spread in SPREADS.items():
            sampling = Sampling(0.8, rng=SeededRng(0), **options)
            times = [slot_milliseconds(sampling, logits[size] * spread) for size in VOCABULARIES]
            table.add_row(cut, name, *(f"{time:.2f}" for time in times))
    console.show(table)


if __name__ == "__main__":
    main()
