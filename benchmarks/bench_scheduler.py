"""Measure what it gains to run requests together, in a bundle with lanes.

    specc compile examples/pycode-10m -o lanes.specc --lanes 8
    python benchmarks/bench_scheduler.py lanes.specc            # prints tables; --json prints one object

- Plain decoding: requests one after another, and the same requests together.
- Each recipe, against plain decoding, where both run together.
- The time between two tokens of requests that decode, while another request's long prompt is read: by the clock, and
  by the processor time of this process, which other processes on the machine do not change.

Works are done in turns within each round. A ratio is the median over rounds of the ratio in one round. Every answer is
compared with that of the request alone: they must be equal.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median, quantiles
from typing import Any

import specc
from specc.cli import console
from specc.exactness import golden
from specc.runtime.model import Model

COLUMNS = ("requests", "work", "tokens a second", "ratio", "ratio of processor time", "tokens a step")


@dataclass(frozen=True)
class Run:
    """One work in one round.

    Attributes:
        seconds: wall clock.
        processor_seconds: of this process, all threads.
        tokens: new tokens of all requests.
        length: mean acceptance length over the requests.
    """

    seconds: float
    processor_seconds: float
    tokens: int
    length: float


class Bench:
    """A model, and prompts whose answers are known."""

    def __init__(self, path: str, tokens: int) -> None:
        self.model: Model = specc.load(path, policy=specc.SchedulerPolicy(pieces=1 << 20))
        if self.model.engines.lanes < 2:
            raise SystemExit(f"{path} has no engines with lanes; compile it with --lanes 8")
        cases = golden.read_cases(self.model.bundle.file(golden.FILE))
        self.prompts, self.tokens = [case.prompt_ids for case in cases], tokens
        self.answers = [self.alone(prompt, "plain").token_ids for prompt in self.prompts]

    def alone(self, prompt: Sequence[int], recipe: str) -> specc.Generation:
        """Decode one request alone."""
        return self.model.generate(list(prompt), self.tokens, recipe=recipe, ignore_eos=True)

    def run(self, count: int, recipe: str, together: bool) -> Run:
        """Decode some requests, and check their answers.

        Raises:
            SystemExit: an answer differs from that of plain decoding.
        """
        indices = [index % len(self.prompts) for index in range(count)]
        start, processor = time.perf_counter(), time.process_time()
        if together:
            options: dict[str, Any] = {"recipe": recipe, "ignore_eos": True}
            handles = [self.model.submit(list(self.prompts[i]), self.tokens, **options) for i in indices]
            answers = [handle.result() for handle in handles]
        else:
            answers = [self.alone(self.prompts[i], recipe) for i in indices]
        seconds, processor = time.perf_counter() - start, time.process_time() - processor
        if [answer.token_ids for answer in answers] != [self.answers[i] for i in indices]:
            raise SystemExit(f"{recipe}: an answer differs from that of the request alone")
        lengths = [answer.stats.mean_acceptance_length for answer in answers]
        return Run(seconds, processor, count * self.tokens, sum(lengths) / count)

    def gaps(self, count: int, prompt_tokens: int) -> dict[str, float]:
        """Return the median and the 99th percentile of the milliseconds between tokens while a prompt is read."""
        options: dict[str, Any] = {"recipe": "plain", "ignore_eos": True}
        handles = [self.model.submit(list(prompt), 512, **options) for prompt in self.prompts[:count]]
        for handle in handles:
            while len(handle.token_ids) < 8:
                time.sleep(0.001)
        long = self.model.submit([self.prompts[0][0]] * prompt_tokens, 1, **options)
        wall, processor = [time.perf_counter()], [time.process_time()]
        tokens = len(handles[0].token_ids)
        while long.finish_reason is None:
            if len(handles[0].token_ids) > tokens:
                tokens = len(handles[0].token_ids)
                wall.append(time.perf_counter())
                processor.append(time.process_time())
            time.sleep(0.0005)
        for handle in handles:
            handle.cancel()
            handle.result()
        result: dict[str, float] = {}
        for name, times in (("wall", wall), ("processor", processor)):
            ranks = quantiles([1e3 * (end - start) for start, end in pairwise(times)], n=100, method="inclusive")
            p50, p99 = ranks[49], ranks[98]
            result |= {f"{name} p50 ms": round(p50, 1), f"{name} p99 ms": round(p99, 1)}
            result[f"{name} p99 / p50"] = round(p99 / p50, 2)
        return result


def compare(base: list[Run], other: list[Run]) -> tuple[float, float]:
    """Return the median ratios of speed, by wall clock and by processor time."""
    pairs = list(zip(base, other, strict=True))
    return median(a.seconds / b.seconds for a, b in pairs), median(
        a.processor_seconds / b.processor_seconds for a, b in pairs
    )


def main() -> None:
    """Measure the bundle that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--recipe", action="append", help="recipes to compare with plain; default: all of the bundle")
    parser.add_argument("--requests", type=int, action="append", help="default: 4 and 8")
    parser.add_argument("--prompt", type=int, default=1024, help="tokens of the long prompt; 0 leaves it out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    bench = Bench(args.bundle, args.tokens)
    names = args.recipe or [r.name for r in bench.model.bundle.manifest.recipes if r.name != "plain"]
    rows: list[dict[str, Any]] = []
    for count in args.requests or (4, 8):
        works = [("plain", False), ("plain", True), *((name, True) for name in names)]
        for recipe, together in works:
            bench.run(min(2, count), recipe, together)  # Loads the engines.
        rounds = [[bench.run(count, *work) for work in works] for _ in range(args.rounds)]
        runs = list(zip(*rounds, strict=True))
        for number, (recipe, together) in enumerate(works):
            base = runs[0] if number < 2 else runs[1]
            speed, processor = compare(list(base), list(runs[number]))
            title = f"{recipe}, one after another" if not together else f"{recipe}, together"
            rate = median(run.tokens / run.seconds for run in runs[number])
            values = (count, title, round(rate, 1), round(speed, 3), round(processor, 3), runs[number][0].length)
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    result: dict[str, Any] = {"rows": rows}
    if args.prompt:
        result["gaps"] = bench.gaps(3, args.prompt)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    table = console.table(
        *COLUMNS, title="ratios: plain together to one after another; recipes to plain, both together"
    )
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    console.show(table)
    if args.prompt:
        print(f"time between tokens while a prompt of {args.prompt} is read: {result['gaps']}")


if __name__ == "__main__":
    main()
