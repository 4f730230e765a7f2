"""Measure Python around the engine calls: the time of a step that is not spent in an engine, for every recipe.

    python benchmarks/bench_steps.py build/demo.specc            # prints a table; --json prints one object

Every recipe continues each golden prompt greedily, with the guard on. Steps with a draft count; for plain decoding all
steps count. "Around" is the time of a step outside its engine calls. "With text" adds the time that turns tokens into
text.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from statistics import median

import specc
from specc.cli import console
from specc.exactness.golden import FILE, read_cases
from specc.runtime.stream import Stream

TOKENS, ROUNDS = 48, 2
COLUMNS = ("steps", "engine calls", "engines, ms", "around, ms", "share", "with text, ms")
Step = tuple[float, float, float, float]  # Engine calls, seconds in them, seconds around them, the same with text.


def steps(stream: Stream, plain: bool) -> Iterator[Step]:
    """Decode to the end, and yield a measurement of each step but the first.

    Args:
        stream: the request.
        plain: whether steps without a draft count.
    """
    stats = stream.stats
    before = (0, 0, 0.0, 0.0, 0.0)
    for _ in stream:
        calls = stats.target_calls + stats.draft_calls
        now = stats.drafts, calls, stats.engine_seconds, stats.seconds, time.perf_counter()
        drafts, new_calls, engines, seconds, clock = (b - a for a, b in zip(before, now, strict=True))
        if before[1] and new_calls and (plain or drafts):
            yield new_calls, engines, seconds - engines, clock - engines
        before = now


def summarise(each: list[Step]) -> dict[str, float]:
    """Compute the medians of a recipe's steps, by the titles of the columns. Times are in milliseconds."""
    calls, engines, around, text = (median(column) for column in zip(*each, strict=True))
    share = median(outside / (outside + inside) for _, inside, outside, _ in each)
    return dict(zip(COLUMNS, (len(each), calls, 1e3 * engines, 1e3 * around, share, 1e3 * text), strict=True))


def main() -> None:
    """Run every recipe of the bundle that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    session = specc.load(args.bundle)
    measured: defaultdict[str, list[Step]] = defaultdict(list)
    for case in read_cases(session.bundle.file(FILE)) * ROUNDS:
        for recipe in session.bundle.manifest.recipes:
            stream = session.stream(case.prompt_ids, TOKENS, recipe=recipe.name, temperature=0, ignore_eos=True)
            measured[recipe.name] += steps(stream, recipe.name == "plain")
    rows = {name: summarise(each) for name, each in measured.items()}
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    table = console.table("recipe", *COLUMNS, title=f"{args.bundle}: medians of a step")
    for name, row in rows.items():
        table.add_row(name, *(f"{value:.3g}" for value in row.values()))
    console.show(table)


if __name__ == "__main__":
    main()
