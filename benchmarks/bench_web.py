"""Measure the browser's runtime beside Python's: tokens of golden cases per second of processor time, in turns.

    python benchmarks/bench_web.py model.specc --rounds 2        # needs `npm ci` in runtimes/web, and Chromium

Both have one thread. The prompts count, too. The first answers of a browser pay for the compilation of ONNX Runtime, so
plain decoding comes first and last.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from pathlib import Path

import specc
from specc.exactness.golden import read_cases

REPLAY = Path(__file__).parents[1] / "runtimes" / "web" / "replay.js"
RECIPES = ("plain", "prompt-lookup", "plain")


def python_speeds(bundle: Path) -> list[float]:
    """Return the tokens per second of processor time by each recipe, in this process."""
    cases = read_cases(bundle / "golden.jsonl")
    tokens = sum(len(case.token_ids) for case in cases)
    speeds = []
    with specc.load(bundle, threads=1) as model:
        session = model.session()
        for recipe in RECIPES:
            start = time.process_time()
            for case in cases:
                session.generate(case.prompt_ids, max_new_tokens=len(case.token_ids), recipe=recipe)
            speeds.append(tokens / (time.process_time() - start))
    return speeds


def web_speeds(bundle: Path) -> list[float]:
    """Return the tokens per second of processor time by each recipe, in Chromium."""
    command = ["node", str(REPLAY), str(bundle), *(f"--recipe={recipe}" for recipe in RECIPES)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [float(line.rpartition(", ")[2].split()[0]) for line in lines]


def main() -> None:
    """Print a line for each round and recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    for number in range(1, arguments.rounds + 1):
        for recipe, web, python in zip(
            RECIPES, web_speeds(arguments.bundle), python_speeds(arguments.bundle), strict=True
        ):
            print(f"{number} {recipe:14} web {web:6.1f}, python {python:6.1f}, ratio {web / python:.2f}", flush=True)


if __name__ == "__main__":
    main()
