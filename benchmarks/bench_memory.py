"""Measure what a further session takes in memory, and what the memory of rows costs in time.

    python benchmarks/bench_memory.py build/demo.specc      # prints a table; --json prints one object

The first part opens sessions of a loaded model one after another. Each decodes to 256 tokens, prompt and answer. What
counts is by how much the resident memory of this process grows. The second part fills rows of a cache in memory as
NumPy gives it, with huge pages; in small pages; and as specc does, in small pages until a quarter of the rows is
filled. Steps of all three are taken in turns, and what counts is the processor time of this process, with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import count
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

import specc
from specc.cli import console
from specc.runtime.bundle import open_bundle
from specc.runtime.device import Device
from specc.runtime.engines import Engines
from specc.runtime.engines.host_memory import HostArray
from specc.runtime.engines.ort_cpu import HostKV, OrtRunner


class NumpyArray(HostArray):
    """An array as NumPy makes it, with huge pages."""

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.values, self.separate = np.zeros(shape, dtype), 0


class SmallPages(HostArray):
    """An array that stays in small pages."""

    def join_pages(self, count: int) -> int:
        """Make none."""
        return 0


KINDS = {"NumPy's": NumpyArray, "small pages": SmallPages, "specc's": HostArray}
CONTEXTS = (0, 256, 1024)  # Rows before the steps that are timed.


def resident() -> float:
    """Return the resident memory of this process, in MB (10^6 bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def further_sessions(path: str, recipe: str, tokens: int, sessions: int) -> list[float]:
    """Return by how many MB the resident memory grows with each session, the model's first one left out.

    Args:
        path: of the bundle.
        recipe: with which sessions decode.
        tokens: of each session, prompt and answer.
        sessions: how many.
    """
    growth = []
    random = np.random.default_rng(0)
    with specc.load(path, threads=1) as model:
        vocabulary = model.bundle.manifest.model.vocab_size
        sessions = []
        for number in range(sessions + 1):
            session = model.session() if number else model.conversation
            sessions.append(session)
            prompt = [int(token) for token in random.integers(vocabulary, size=tokens - tokens // 4)]
            before = resident()
            session.generate(prompt, tokens // 4, recipe=recipe, ignore_eos=True)
            growth.append(resident() - before)
    return growth[1:]


def steps(path: str, rounds: int, blocks: int) -> dict[str, dict[str, float]]:
    """Return what a decode step takes by the rows before it: milliseconds in NumPy's memory, ratios to it in others.

    A round takes `blocks` steps with each kind. Each round has caches of its own, since physical memory differs.
    """
    bundle = open_bundle(path)
    engines = Engines(bundle, Device(threads=1))
    engine, spec = engines["decode"], bundle.engine("decode")
    assert isinstance(engine.runner, OrtRunner) and isinstance(engine.store, HostKV)
    contexts = [rows for rows in CONTEXTS if rows + blocks <= engine.store.capacity]
    results: dict[str, dict[str, float]] = {}
    for rows in contexts:
        ratios: dict[str, list[float]] = {kind: [] for kind in list(KINDS)[1:]}
        times: list[float] = []
        for number in range(rounds):
            runners = {}
            for kind, memory in KINDS.items():
                store = HostKV(engine.store.spec, memory)
                for array in store.arrays:
                    array[:, :, :rows] = 0.1
                store.commit(0, range(rows))
                runners[kind] = OrtRunner(engine.runner.session, spec, store)
            seconds = dict.fromkeys(KINDS, 0.0)
            for step in range(blocks):
                for kind in sorted(KINDS, reverse=bool((step + number) % 2)):
                    runner = runners[kind]
                    runner.inputs["input_ids"][:], runner.inputs["past_len"][:] = step + 1, rows + step
                    start = time.process_time()
                    runner.run()
                    seconds[kind] += time.process_time() - start
            times.append(1e3 * seconds["NumPy's"] / blocks)
            for kind, each in ratios.items():
                each.append(seconds[kind] / seconds["NumPy's"])
        results[str(rows)] = {"NumPy's, ms": median(times)} | {kind: median(each) for kind, each in ratios.items()}
    return results


def main() -> None:
    """Measure the bundle that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--recipe", default="plain", help="of the sessions")
    parser.add_argument("--tokens", type=int, default=256, help="of each session, prompt and answer")
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=24, help="of each kind in a round")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    growth = further_sessions(args.bundle, args.recipe, args.tokens, args.sessions)
    times = steps(args.bundle, args.rounds, args.steps)
    if args.json:
        print(json.dumps({"tokens": args.tokens, "further_sessions_MB": growth, "steps": times}, indent=1))
        return
    memory = console.table(
        "session", "MB", title=f"{args.bundle}: resident memory of a further session, {args.tokens} tokens"
    )
    for number, size in zip(count(2), growth, strict=False):
        memory.add_row(str(number), f"{size:.1f}")
    speed = console.table("rows before", *next(iter(times.values())), title="a decode step, processor time")
    for rows, row in times.items():
        speed.add_row(rows, *(f"{value:.3f}" for value in row.values()))
    console.show(console.stack(memory, speed))


if __name__ == "__main__":
    main()
