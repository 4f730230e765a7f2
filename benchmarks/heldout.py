"""Measure a bundle of the demo model on source files that it was not trained on.

    python benchmarks/heldout.py build/demo.specc                        # a table: every recipe beside plain decoding
    python benchmarks/heldout.py build/demo.specc --prompts prompts.jsonl   # write golden prompts from the same files

From each file come so many windows of text at seeded places; all recipes continue each in turn, round after round.
Tokens a step are new tokens by target calls; speed is decoding alone, the median of the rounds' ratios to plain.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import sysconfig
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.progress import track
from rich.table import Table

import specc
from specc.bench import in_turn
from specc.runtime.stream import Generation

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))  # train_demo.py names the files that it left out
from train_demo import HELD_OUT

CHARACTERS = 400


def windows(count: int, seed: int) -> list[str]:
    """`count` pieces of each held-out file, each from the start of a line."""
    root, draw, pieces = Path(sysconfig.get_paths()["stdlib"]), random.Random(seed), []
    for name in HELD_OUT:
        lines = (root / name).read_text(encoding="utf-8").splitlines(keepends=True)
        for _ in range(count):
            start = draw.randrange(max(1, len(lines) - 40))
            pieces.append("".join(lines[start:])[:CHARACTERS])
    return pieces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--windows", type=int, default=2, help="pieces of each of the files (default 2)")
    parser.add_argument("--tokens", type=int, default=96, help="new tokens after each (default 96)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--recipe", action="append", help="measure these only, and plain")
    parser.add_argument("--prompts", type=Path, help="write golden prompts to this file instead")
    args = parser.parse_args()
    if args.prompts:
        lines = (json.dumps({"prompt": piece}) + "\n" for piece in windows(1, seed=1)[::2])
        args.prompts.write_text("".join(lines), encoding="utf-8")
        return
    session = specc.load(args.bundle)
    manifest = session.bundle.manifest
    names = ["plain", *(n for n in args.recipe or (r.name for r in manifest.recipes) if n != "plain")]
    prompts = [session.text.encode(piece) for piece in windows(args.windows, seed=0)]
    speeds: dict[str, list[float]] = {name: [] for name in names}
    steps: dict[str, float] = {}
    different = dict.fromkeys(names, 0)
    for number in track(range(args.rounds), "rounds"):
        session.drafters.clear()  # or a round would draft from the answers of the last
        done: dict[str, list[Generation]] = {name: [] for name in names}
        for i, prompt in enumerate(prompts):
            for name in in_turn(names, i):
                done[name].append(session.generate(prompt, args.tokens, recipe=name, ignore_eos=True))
        for name, results in done.items():
            speeds[name].append(sum(r.stats.new_tokens - 1 for r in results) / sum(r.stats.seconds for r in results))
            steps[name] = sum(r.stats.new_tokens - 1 for r in results) / sum(r.stats.target_calls for r in results)
            if number == 0:
                pairs = zip(results, done["plain"], strict=True)
                different[name] = sum(r.token_ids != p.token_ids for r, p in pairs)
    table = Table(
        "recipe", "tokens/s", "against plain", "tokens a step", "differs from plain", title=f"{len(prompts)} prompts"
    )
    for name in names:
        ratio = median(a / b for a, b in zip(speeds[name], speeds["plain"], strict=True))
        mark = " (default)" if name == manifest.default_recipe else ""
        speed, each = f"{median(speeds[name]):.0f}", f"{steps[name]:.2f}"
        table.add_row(name + mark, speed, f"{ratio:.2f} x", each, str(different[name]))
    Console().print(table)


if __name__ == "__main__":
    main()
