"""Measure a recipe in several bundles that differ in its parameters: tokens of a step, and the time of a step.

    python benchmarks/bench_pruning.py speculative-streaming build/all.specc build/pruned.specc

The bundles take turns at each golden prompt of the first one, greedily and without the guard, beside plain decoding in
the first one. All must give its tokens. The time is the median over the answers, of the target's steps alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median

import specc
from specc.exactness.golden import FILE, read_cases

TOKENS, ROUNDS = 64, 3


def main() -> None:
    """Run the recipe in all bundles that the command line names, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("bundles", nargs="+")
    args = parser.parse_args()
    models = {path: specc.load(path) for path in args.bundles}
    runs = {"plain": (models[args.bundles[0]], "plain")} | {
        path: (model, args.recipe) for path, model in models.items()
    }
    tokens, steps = dict.fromkeys(runs, 0), dict.fromkeys(runs, 0)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for case in read_cases(Path(args.bundles[0]) / FILE) * ROUNDS:
        expected: list[int] = []
        for name, (model, recipe) in runs.items():
            answer = model.session().generate(case.prompt_ids, TOKENS, recipe=recipe, guard=False, ignore_eos=True)
            expected = expected or answer.token_ids
            if answer.token_ids != expected:
                raise SystemExit(f"{name}: {recipe} does not give the tokens of plain decoding")
            tokens[name] += len(answer.token_ids) - 1
            steps[name] += answer.stats.target_calls
            seconds[name].append(answer.stats.verify_seconds / answer.stats.target_calls)
    for name in runs:
        rate, time = tokens[name] / steps[name], 1e3 * median(seconds[name])
        print(f"{name}: {rate:.3f} tokens a step, {time:.2f} ms a step, {1e3 * rate / time:.0f} tokens/s")


if __name__ == "__main__":
    main()
