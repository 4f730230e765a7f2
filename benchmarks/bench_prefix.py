"""Measure what a request saves if another one has rows of the same beginning, and what copying rows costs.

    python benchmarks/bench_prefix.py build/demo.specc      # prints a table; --json prints one object

Prompts of `--shared` tokens that are the same, and `--own` tokens that are not, are submitted one after another to a
model of two lanes. One lane belongs to a conversation that has the shared tokens, so each request gets their rows by a
copy. The same prompts are submitted to a model that copies nothing, in turns. What counts is the processor time of this
process until the first token, with one thread. The answers must be equal.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import median

import numpy as np

import specc
from specc.cli import console
from specc.runtime.lanes import ReusePolicy
from specc.runtime.sequence import TARGET

ANSWER = 16  # Tokens that are compared.


class Requests:
    """A model whose conversation has read the shared tokens.

    Attributes:
        model: the model.
    """

    def __init__(self, path: str, shared: list[int], policy: ReusePolicy) -> None:
        """Load a bundle, and let the conversation read the shared tokens."""
        self.model = specc.load(path, threads=1)
        self.model.shared.lanes.policy = policy
        self.model.generate(shared, 1, recipe="plain", ignore_eos=True)

    def submit(self, prompt: list[int]) -> tuple[float, list[int]]:
        """Return the processor time until the first token, in seconds, and the answer."""
        start = time.process_time()
        handle = self.model.submit(prompt, ANSWER, recipe="plain", temperature=0, ignore_eos=True)
        next(handle)
        seconds = time.process_time() - start
        return seconds, handle.result().token_ids

    def forget(self) -> None:
        """Drop the rows of all lanes but the conversation's."""
        lane = self.model.shared.lanes.take()
        lane.caches[TARGET].sync([])
        self.model.shared.lanes.give_back(lane)


def copy_time(model: specc.Model, rows: int) -> float:
    """Return the processor time of copying rows from one lane to another, in milliseconds."""
    lanes = model.shared.lanes
    lane = lanes.take()
    source = model.conversation.cache
    milliseconds = []
    for _ in range(9):
        lane.caches[TARGET].sync([])
        start = time.process_time()
        copied = lane.caches[TARGET].copy(source, rows)
        milliseconds.append(1e3 * (time.process_time() - start))
        assert copied == rows
    lanes.give_back(lane)
    return median(milliseconds)


def main() -> None:
    """Measure the bundle that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--shared", type=int, default=512, help="tokens that all prompts begin with")
    parser.add_argument("--own", type=int, nargs="+", default=[16, 64], help="tokens of each prompt alone")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    random = np.random.default_rng(0)
    with specc.load(args.bundle) as model:
        vocabulary = model.bundle.manifest.model.vocab_size
    shared = [int(token) for token in random.integers(vocabulary, size=args.shared)]
    both = [Requests(args.bundle, shared, ReusePolicy(min_copied_rows=n)) for n in (16, sys.maxsize)]
    rows: dict[str, dict[str, float]] = {}
    for own in args.own:
        times: list[list[float]] = [[], []]
        for _ in range(args.rounds + 1):  # The first round warms up.
            prompt = shared + [int(token) for token in random.integers(vocabulary, size=own)]
            answers = []
            for requests, durations in zip(both, times, strict=True):
                requests.forget()
                seconds, answer = requests.submit(prompt)
                durations.append(seconds)
                answers.append(answer)
            if answers[0] != answers[1]:
                raise SystemExit(f"with copied rows {answers[0]}, without {answers[1]}")
        copied, computed = (median(durations[1:]) for durations in times)
        rows[f"{args.shared} + {own}"] = {
            "copied, s": copied,
            "computed, s": computed,
            "saved": 1 - copied / computed,
        }
    copies = {f"{count} rows": copy_time(both[0].model, count) for count in (16, 128, args.shared)}
    if args.json:
        print(json.dumps({"prefill": rows, "copy_ms": copies}, indent=1))
        return
    table = console.table(
        "tokens", *next(iter(rows.values())), title=f"{args.bundle}: time to the first token, processor time"
    )
    for tokens, row in rows.items():
        table.add_row(tokens, *(f"{value:.3f}" for value in row.values()))
    console.show(table)
    print("a copy: " + ", ".join(f"{count} {value:.2f} ms" for count, value in copies.items()))


if __name__ == "__main__":
    main()
