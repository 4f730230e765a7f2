"""Python around the engine calls: what a step costs besides them, by every recipe of a bundle.

    python benchmarks/bench_steps.py build/demo.specc            # a table; --json for one object
Every recipe continues each golden prompt, greedily, guard on; steps with a draft count, and all of plain decoding.
"Around" is the time of a step outside its engine calls, "with text" the same with turning tokens into text.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from statistics import median

from rich.console import Console
from rich.table import Table

import specc
from specc.exactness.golden import FILE, read_cases
from specc.runtime.stream import Stream

TOKENS, ROUNDS = 48, 2
HEADS = ("steps", "engine calls", "engines, ms", "around, ms", "share", "with text, ms")


def steps(stream: Stream, plain: bool) -> Iterator[tuple[float, ...]]:
    """Of each step but the first: engine calls, seconds in them, around them, and around them with text."""
    stats, before = stream.stats, (0, 0, 0.0, 0.0, 0.0)
    for _ in stream:
        calls = stats.target_calls + stats.draft_calls
        now = stats.drafts, calls, stats.engine_seconds, stats.seconds, time.perf_counter()
        drafts, calls, engines, seconds, clock = (b - a for a, b in zip(before, now, strict=True))
        if before[1] and calls and (plain or drafts):
            yield calls, engines, seconds - engines, clock - engines
        before = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    session, found, rows = specc.load(args.bundle), defaultdict(list), {}
    table = Table("recipe", *HEADS, title=f"{args.bundle}: medians of a step")
    for case in read_cases(session.bundle.file(FILE)) * ROUNDS:
        for r in session.bundle.manifest.recipes:
            stream = session.stream(case.prompt_ids, TOKENS, recipe=r.name, ignore_eos=True)
            found[r.name] += steps(stream, r.name == "plain")
    for name, each in found.items():
        calls, engines, around, text = (median(column) for column in zip(*each, strict=True))
        share = median(a / (a + e) for _, e, a, _ in each)
        rows[name] = dict(zip(HEADS, (len(each), calls, 1e3 * engines, 1e3 * around, share, 1e3 * text), strict=True))
        table.add_row(name, *(f"{v:.3g}" for v in rows[name].values()))
    print(json.dumps(rows, indent=1)) if args.json else Console().print(table)


if __name__ == "__main__":
    main()
