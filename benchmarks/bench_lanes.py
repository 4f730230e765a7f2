"""Measure what lanes save: one call that decodes a token for several sequences, against as many calls of one sequence.

    specc compile examples/pycode-10m -o lanes.specc --lanes 8
    python benchmarks/bench_lanes.py lanes.specc            # prints a table; --json prints one object

Each lane has a context of its own. Calls are made in turns within each round, and what counts is the processor time of
this process, with one thread, so that other work on the machine matters little. The tokens of a call are compared with
those of the single calls: they must be equal.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from specc.cli import console
from specc.runtime.bundle import open_bundle
from specc.runtime.call import Call
from specc.runtime.device import Device
from specc.runtime.engines import Engines
from specc.runtime.engines.ort_cpu import HostKV, OrtRunner
from specc.runtime.engines.ort_lanes import OrtLanes
from specc.runtime.lane_calls import LanesEngine
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

CONTEXT = 64  # Rows of each lane.
COLUMNS = ("one by one, ms", "one call, ms", "ratio")


def processor_time(work: Callable[[], object]) -> float:
    """Return the processor time of a function, in milliseconds."""
    start = time.process_time()
    work()
    return 1e3 * (time.process_time() - start)


class Bench:
    """The two engines of a bundle that decode, over sequences of random tokens.

    Attributes:
        lanes: the engine that decodes several sequences in one call.
        single: the engine that decodes one.
        stores: the rows of each sequence.
    """

    def __init__(self, path: str) -> None:
        bundle = open_bundle(path)
        engines = Engines(bundle, Device(threads=1))
        single, several = engines["decode"], engines["decode-lanes"]
        assert isinstance(single.runner, OrtRunner) and isinstance(several.runner, OrtLanes)
        assert isinstance(single.store, HostKV)
        spec = bundle.engine("decode")
        self.single = single
        self.lanes = LanesEngine("decode-lanes", several.block, several.runner)
        self.stores = [HostKV(single.store.spec) for _ in range(several.block.lanes)]
        self.runners = [OrtRunner(single.runner.session, spec, store) for store in self.stores]
        self.random = np.random.default_rng(0)
        self.vocabulary = bundle.manifest.model.vocab_size
        for row in range(CONTEXT):
            for lane in range(several.block.lanes):
                self.decode(lane, row, int(self.random.integers(self.vocabulary)))

    def decode(self, lane: int, row: int, token: int) -> int:
        """Decode a token of one sequence alone, at a row; return the next token."""
        runner = self.runners[lane]
        runner.inputs["input_ids"][:], runner.inputs["past_len"][:] = token, row
        runner.run()
        return int(runner.outputs["ids"][0, 0])

    def round(self, count: int) -> tuple[float, float]:
        """Decode a token of `count` sequences both ways; return the milliseconds of each.

        Raises:
            SystemExit: a token differs.
        """
        tokens = [int(token) for token in self.random.integers(self.vocabulary, size=count)]
        alone: list[int] = []
        together: list[int] = []
        caches = [Cache(store, [0] * CONTEXT) for store in self.stores]
        calls = [Call(self.single, caches[lane], 0, [token], Tree.chain(1)) for lane, token in enumerate(tokens)]
        one_by_one = processor_time(
            lambda: alone.extend(self.decode(lane, CONTEXT, token) for lane, token in enumerate(tokens))
        )
        one_call = processor_time(lambda: together.extend(outputs.ids_N[0] for outputs in self.lanes.run(calls)))
        if alone != together:
            raise SystemExit(f"{count} lanes gave {together}, and each sequence alone {alone}")
        return one_by_one, one_call


def main() -> None:
    """Measure the bundle that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    bench = Bench(args.bundle)
    counts = [count for count in (1, 2, 4, 8, 16, 32) if count <= bench.lanes.block.lanes]
    rounds = [[bench.round(count) for count in counts] for _ in range(args.rounds + 1)][1:]  # The first one warms up.
    rows: dict[int, dict[str, float]] = {}
    for number, count in enumerate(counts):
        pairs = [each[number] for each in rounds]
        medians = median(one for one, _ in pairs), median(call for _, call in pairs)
        ratio = median(one / call for one, call in pairs)
        rows[count] = dict(zip(COLUMNS, (*medians, ratio), strict=True))
    if args.json:
        print(json.dumps({"lanes": bench.lanes.block.lanes, "rows": rows}, indent=1))
        return
    title = f"{args.bundle}: a token for each sequence, {bench.lanes.block.lanes} lanes, processor time"
    table = console.table("sequences", *COLUMNS, title=title)
    for count, row in rows.items():
        table.add_row(str(count), *(f"{value:.3g}" for value in row.values()))
    console.show(table)


if __name__ == "__main__":
    main()
