"""The numbers that a benchmark measures by.

They were chosen on a virtual machine with 2 cores of a Xeon with AVX-512 and without AMX, ONNX Runtime 1.31.1, 2
threads. The comment above each field gives its unit, and the command that measures the figure anew.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BenchPolicy:
    """The numbers that `specc bench` measures by."""

    # Rows of context before a timed step of an engine. Anew: the step_costs of `specc bench BUNDLE --json`.
    contexts: tuple[int, ...] = (64, 1024)
    # Tokens of the runs that warm up a recipe or a peer. Anew: the spread in `specc bench BUNDLE --json`, which the
    # first round widens if the warm-up is too short.
    warm_up_tokens: int = 16
    # Interquartile range of a mode's rounds, as a share of its speed, above which a warning says that the speed is
    # unsure. Anew: the spread in `specc bench BUNDLE --json`, on an idle and on a busy machine.
    largest_spread: float = 0.15


BENCH = BenchPolicy()
