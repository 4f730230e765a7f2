"""Measure how true the time left is that `specc compile` shows, and how long each stage takes.

    python benchmarks/bench_time_left.py model.gguf        # any model that compiles; --json prints one object

It compiles the model with the default recipes, and notes when each part is reported as done. The error is that of the
shown time left, which counts down between two reports, from a tenth of the compile on until a twentieth is left. 0.3
means 30 % too much or too little. An error of less than 2 seconds does not count.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from specc.compiler import Options, compile_bundle
from specc.compiler.stages import DETAIL

FIRST, LAST = 0.1, 0.95  # Judge the time left between these shares of the whole time.
SMALL = 2.0  # seconds


def record(model: str) -> list[tuple[float, str, int, int]]:
    """Compile a model, and return each report: the seconds since the first, the stage, the parts done, and in all."""
    reports: list[tuple[float, str, int, int]] = []

    def note(title: str, done: int, total: int) -> None:
        reports.append((time.monotonic(), title.partition(DETAIL)[0], done, total))

    with tempfile.TemporaryDirectory() as folder:
        compile_bundle(Options(model=model, output=Path(folder) / "model.specc", stage=note))
    start = reports[0][0]
    return [(clock - start, *rest) for clock, *rest in reports]


def worst_error(reports: list[tuple[float, str, int, int]]) -> float:
    """Return the largest error of the time left, as a share of the true one. Both ends of a report's life count."""
    whole, worst = reports[-1][0], 0.0
    for (begin, _, done, total), (end, *_) in pairwise(reports):
        for clock in (begin, end):
            if done and FIRST * whole <= clock <= LAST * whole:
                left = begin * (total - done) / done - (clock - begin)
                error = abs(left - (whole - clock))
                worst = max(worst, error / (whole - clock) if error >= SMALL else 0.0)
    return worst


def main() -> None:
    """Print the seconds of each stage and the worst error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    reports = record(arguments.model)
    seconds: dict[str, float] = {}
    for (begin, title, *_), (end, *_) in pairwise(reports):
        seconds[title] = seconds.get(title, 0.0) + end - begin
    result = {"seconds": reports[-1][0], "worst_error": worst_error(reports), "stages": seconds}
    if arguments.json:
        print(json.dumps(result))
        return
    for title, duration in seconds.items():
        print(f"{duration:7.1f} s  {title}")
    print(f"{reports[-1][0]:7.1f} s  in all; the time left was wrong by {result['worst_error']:.0%} at most")


if __name__ == "__main__":
    main()
