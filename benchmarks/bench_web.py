"""Measure the browser's runtime beside Python's, in turns, and the time to a page's first token.

    python benchmarks/bench_web.py model.specc --rounds 2        # needs `npm ci` in runtimes/web, and Chromium

Tokens of golden cases per second of processor time: both have one thread, and the prompts count, too. The first answers
of a browser pay for the compilation of ONNX Runtime, so plain decoding comes first and last.

The first token, by the clock: the page reads the bundle from this machine and decodes at once, by the bundle's recipe.
The time counts from the moment when the page is asked for. The second visit finds the weights in the Cache API.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import time
from pathlib import Path

import specc
from specc.exactness.golden import read_cases

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "runtimes" / "web"
DRIVER = ROOT / "tests" / "runtimes" / "web" / "page.js"
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


def web_speeds(bundle: Path, package: Path) -> list[float]:
    """Return the tokens per second of processor time by each recipe, in Chromium."""
    command = ["node", str(package / "replay.js"), str(bundle), *(f"--recipe={recipe}" for recipe in RECIPES)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [
        float(line.rpartition(", ")[2].split()[0]) for line in lines if line.endswith("tokens per processor second")
    ]


def first_tokens(bundle: Path, package: Path) -> list[float]:
    """Return the seconds to the first token of a page, at the first visit and at the second one."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise SystemExit("there is no Chromium on PATH; install it")
    command = ["node", str(DRIVER), str(package), chromium, "first", str(bundle), "", "16"]
    seconds: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds


def main() -> None:
    """Print a line for each round and recipe, and one for each page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--package", type=Path, default=PACKAGE, help="the package of the browser, with what it needs")
    parser.add_argument("--only-first-token", action="store_true", help="leave out the golden cases")
    arguments = parser.parse_args()
    bundle, package = arguments.bundle.resolve(), arguments.package.resolve()
    for number in range(1, arguments.rounds + 1):
        first, again = first_tokens(bundle, package)
        print(f"{number} first token    {first:.2f} s, with the weights cached {again:.2f} s", flush=True)
        if arguments.only_first_token:
            continue
        for recipe, web, python in zip(RECIPES, web_speeds(bundle, package), python_speeds(bundle), strict=True):
            print(f"{number} {recipe:14} web {web:6.1f}, python {python:6.1f}, ratio {web / python:.2f}", flush=True)


if __name__ == "__main__":
    main()
