"""Measure a bundle of the demo model on source files that it was not trained on.

    python benchmarks/heldout.py build/demo.specc                           # prints every recipe beside plain decoding
    python benchmarks/heldout.py build/demo.specc --prompts prompts.jsonl   # writes golden prompts from these files

Each file gives some windows of text, at places that a seed chooses. All recipes continue each window in turn, round
after round. Tokens a step are new tokens divided by target calls. The speed is that of decoding alone. It is compared
with plain decoding as the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import sysconfig
from pathlib import Path
from statistics import median

from rich.progress import track
from rich.table import Table

import specc
from specc.bench.schedule import rotate
from specc.cli import console
from specc.runtime.session import Session
from specc.runtime.stream import Generation

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))  # The folder is not a package.

from train_demo import HELD_OUT

CHARACTERS = 400  # In each window.


def windows(count: int, seed: int) -> list[str]:
    """Cut `count` windows out of each held-out file, each from the start of a line."""
    root, rng, pieces = Path(sysconfig.get_paths()["stdlib"]), random.Random(seed), []
    for name in HELD_OUT:
        lines = (root / name).read_text(encoding="utf-8").splitlines(keepends=True)
        for _ in range(count):
            start = rng.randrange(max(1, len(lines) - 40))
            pieces.append("".join(lines[start:])[:CHARACTERS])
    return pieces


def run_round(
    session: Session, prompts: list[list[int]], recipes: list[str], tokens: int
) -> dict[str, list[Generation]]:
    """Continue every prompt by every recipe.

    Drafters forget what they learned first, since they would draft from the answers of the round before.

    Returns:
        The answers of each recipe, in the order of the prompts.
    """
    session.shared.drafters.clear()
    answers: dict[str, list[Generation]] = {name: [] for name in recipes}
    for i, prompt in enumerate(prompts):
        for name in rotate(recipes, i):
            answers[name].append(session.generate(prompt, tokens, recipe=name, temperature=0, ignore_eos=True))
    return answers


def measure(session: Session, prompts: list[list[int]], recipes: list[str], tokens: int, rounds: int) -> Table:
    """Run all rounds and draw the figures of each recipe.

    Args:
        session: a session on the bundle.
        prompts: token ids of each prompt.
        recipes: names of recipes, plain decoding first.
        tokens: new tokens after each prompt.
        rounds: how many rounds are measured.
    """
    results = [run_round(session, prompts, recipes, tokens) for _ in track(range(rounds), "rounds")]
    columns = ("recipe", "tokens/s", "against plain", "tokens a step", "differs from plain")
    table = console.table(*columns, title=f"{len(prompts)} prompts")
    plain_speeds = [speed(answers["plain"]) for answers in results]
    for name in recipes:
        speeds = [speed(answers[name]) for answers in results]
        ratio = median(a / b for a, b in zip(speeds, plain_speeds, strict=True))
        last = [answer.stats for answer in results[-1][name]]
        per_step = sum(stats.new_tokens - 1 for stats in last) / sum(stats.target_calls for stats in last)
        pairs = zip(results[0][name], results[0]["plain"], strict=True)
        different = sum(answer.token_ids != plain.token_ids for answer, plain in pairs)
        title = f"{name} (default)" if name == session.bundle.manifest.default_recipe else name
        table.add_row(title, f"{median(speeds):.0f}", f"{ratio:.2f} x", f"{per_step:.2f}", str(different))
    return table


def speed(answers: list[Generation]) -> float:
    """Compute the tokens a second of decoding over some answers."""
    stats = [answer.stats for answer in answers]
    return sum(each.new_tokens - 1 for each in stats) / sum(each.seconds for each in stats)


def main() -> None:
    """Write prompts, or measure the bundle that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--windows", type=int, default=2, help="windows of each file (default 2)")
    parser.add_argument("--tokens", type=int, default=96, help="new tokens after each window (default 96)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that are measured (default 5)")
    parser.add_argument("--recipe", action="append", help="measure this recipe and plain decoding; may be repeated")
    parser.add_argument("--prompts", type=Path, help="write golden prompts to this file, and measure nothing")
    args = parser.parse_args()
    if args.prompts:
        lines = (json.dumps({"prompt": piece}) + "\n" for piece in windows(1, seed=1)[::2])
        args.prompts.write_text("".join(lines), encoding="utf-8")
        return
    session = specc.load(args.bundle).conversation
    names = args.recipe or [recipe.name for recipe in session.bundle.manifest.recipes]
    recipes = ["plain", *(name for name in names if name != "plain")]
    prompts = [session.text.encode(piece) for piece in windows(args.windows, seed=0)]
    console.show(measure(session, prompts, recipes, args.tokens, args.rounds))


if __name__ == "__main__":
    main()
