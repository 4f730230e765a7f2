r"""Measure what it gains that requests at different loops of a recursive draft model share a run.

    specc train examples/pycode-10m --recipe relaxed-recursive -o draft --loops 3
    specc compile examples/pycode-10m --dtype fp32 --assistant-model draft --recipe recursive-depths --lanes 8 \
        -o d.specc
    python benchmarks/bench_depths.py d.specc

Requests run together in each work, and verify together. Drafts have a fixed length. Either their calls of the draft
model share runs, or each is a run of its own. Plain decoding, together, is the third work. Works are done in turns
within each round, and figures are medians over rounds. Every answer is compared with plain decoding's.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any, NamedTuple

import specc
from specc.cli import console
from specc.exactness import golden
from specc.runtime.block import LOOP
from specc.runtime.engine import Engine
from specc.runtime.lane_calls import LanesEngine

RECIPE = "recursive-depths"
WORKS = {"shared runs": (RECIPE, True), "a run for each call": (RECIPE, False), "plain decoding": ("plain", True)}
COLUMNS = ("requests", "work", "runs of the draft model", "seconds", "processor seconds", "tokens a second", "exits")


class Run(NamedTuple):
    """One work in one round: runs of the draft model, seconds, processor seconds, and exits after each loop."""

    runs: int
    seconds: float
    processor_seconds: float
    exits: tuple[int, ...]


class Bench:
    """A model, and prompts whose answers are known."""

    def __init__(self, path: str, tokens: int, threshold: float | None) -> None:
        self.model = specc.load(path, policy=specc.SchedulerPolicy(pieces=1 << 20))
        cases = golden.read_cases(self.model.bundle.file(golden.FILE))
        self.prompts, self.tokens = [case.prompt_ids for case in cases], tokens
        self.merges = True
        stream: Any = self.model.session().stream([1], 1, recipe=RECIPE, guard=False)
        self.drafter = stream.decoder.decoding.drafting.drafter
        if threshold is not None:
            self.drafter.threshold = threshold
        engines: Any = self.model.engines
        lanes_for = engines.lanes_for
        together = lanes_for(self.drafter.engine)
        if together is None:
            raise SystemExit(f"{path} has no engines with lanes; compile it with --lanes 8")
        self.engines = [*self.drafter.engines, together]

        def merging(engine: Engine) -> LanesEngine | None:
            lanes: LanesEngine | None = lanes_for(engine) if self.merges or LOOP not in engine.block.inputs else None
            return lanes

        engines.lanes_for = merging

    def run(self, count: int, recipe: str, merges: bool) -> tuple[Run, list[list[int]]]:
        """Decode some requests together, and return the figures and the answers."""
        self.merges = merges
        before = sum(engine.calls for engine in self.engines)
        start, processor = time.perf_counter(), time.process_time()
        prompts = [list(self.prompts[index % len(self.prompts)]) for index in range(count)]
        handles = [
            self.model.submit(prompt, self.tokens, recipe=recipe, guard=False, ignore_eos=True) for prompt in prompts
        ]
        draftings: list[Any] = [handle.submission.decoder.decoding.drafting for handle in handles]
        answers = [handle.result().token_ids for handle in handles]
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        runs = sum(engine.calls for engine in self.engines) - before
        exits = tuple(map(sum, zip(*(getattr(drafting, "counts", [0]) for drafting in draftings), strict=True)))
        return Run(runs, seconds, processor, exits), answers


def main() -> None:
    """Measure the bundle that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, action="append", help="default: 4 and 8")
    parser.add_argument("--threshold", type=float, help="default: that of the bundle")
    args = parser.parse_args()
    bench = Bench(args.bundle, args.tokens, args.threshold)
    table = console.table(*COLUMNS)
    for count in args.requests or (4, 8):
        for work in WORKS.values():
            bench.run(2, *work)  # Loads the engines.
        rounds: dict[str, list[Run]] = {title: [] for title in WORKS}
        for _ in range(args.rounds):
            texts = []
            for title, work in WORKS.items():
                run, answers = bench.run(count, *work)
                rounds[title].append(run)
                texts.append(answers)
            if any(answers != texts[-1] for answers in texts):
                raise SystemExit("an answer differs from that of plain decoding")
        for title, runs in rounds.items():
            seconds, processor = (median(values) for values in zip(*(run[1:3] for run in runs), strict=True))
            rate, exits = count * args.tokens / seconds, " ".join(map(str, runs[0].exits))
            figures = (f"{runs[0].runs}", f"{seconds:.2f}", f"{processor:.2f}", f"{rate:.0f}", exits)
            table.add_row(str(count), title, *figures)
    console.show(table)


if __name__ == "__main__":
    main()
