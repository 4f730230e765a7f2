"""Compare Python around the engine calls in two checkouts: processor time of a step, for every recipe.

    python benchmarks/bench_loop.py build/demo.specc --against ../old    # prints a table; --json prints one object

Each checkout runs in a process of its own, with the Python of its `.venv`, and the two take turns. Engines are fakes:
the first answer to a golden prompt records their outputs, and the next ones replay them. So almost no time is spent in
an engine, and nothing disturbs a step. The time of a step is that of one thread for a whole answer, less the time in
the runners, divided by the steps. Each recipe has the median of all rounds. The guard is off.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

TOKENS, PROMPTS, REPLAYS, ROUNDS = 64, 1, 8, 7


class Replay:
    """A runner that records the outputs of another one, and then gives them without running it.

    Attributes:
        seconds: processor time in this runner so far.
        at: the next call to record or to replay.
        records: the outputs of each call.
    """

    def __init__(self, runner: Any) -> None:
        self.runner, self.inputs, self.outputs = runner, runner.inputs, runner.outputs
        self.seconds, self.at = 0.0, 0
        self.records: list[dict[str, Any]] = []

    def run(self) -> None:
        """Write the outputs of the next call."""
        start = time.thread_time()
        if self.at == len(self.records):
            self.runner.run()
            self.records.append({name: array.copy() for name, array in self.outputs.items()})
        else:
            for name, array in self.records[self.at].items():
                self.outputs[name][...] = array
        self.at += 1
        self.seconds += time.thread_time() - start


def replays_of(session: Any, recipe: Any) -> list[Replay]:
    """Put a fresh replay in the place of each runner that a recipe needs, and return them."""
    session.engines.load("prefill", "decode", *recipe.engine_names)
    replays = []
    for name in dict.fromkeys(("prefill", "decode", *recipe.engine_names)):
        engine = session.engines[name]
        holder = engine._bindings[engine.store] if hasattr(engine, "_bindings") else engine
        real = holder.runner.runner if isinstance(holder.runner, Replay) else holder.runner
        holder.runner = Replay(real)
        replays.append(holder.runner)
    return replays


def microseconds(session: Any, prompt: list[int], recipe: Any) -> list[float]:
    """Return the processor time of a step around the runners, for each replay of one answer."""
    replays, times = replays_of(session, recipe), []
    for _ in range(1 + REPLAYS):
        (session.shared if hasattr(session, "shared") else session).drafters.clear()
        session.cache.sync([])
        for replay in replays:
            replay.at, replay.seconds = 0, 0.0
        stream = session.stream(prompt, TOKENS, recipe=recipe.name, temperature=0, ignore_eos=True, guard=False)
        next(stream)
        calls, before = stream.stats.target_calls, sum(r.seconds for r in replays)
        start = time.thread_time()
        stream.rest()
        seconds = time.thread_time() - start - (sum(r.seconds for r in replays) - before)
        times.append(1e6 * seconds / (stream.stats.target_calls - calls))
    return times[1:]


def measure(bundle: str) -> dict[str, float]:
    """Return the median time of a step in microseconds, by recipe. It runs in the process of one checkout."""
    import specc
    from specc.exactness.golden import FILE, read_cases

    instance: Any = specc.load(bundle)
    session = instance.conversation if hasattr(instance, "conversation") else instance
    times: defaultdict[str, list[float]] = defaultdict(list)
    for case in read_cases(session.bundle.file(FILE))[:PROMPTS]:
        for recipe in session.bundle.manifest.recipes:
            times[recipe.name] += microseconds(session, case.prompt_ids, recipe)
    return {name: median(each) for name, each in times.items()}


def main() -> None:
    """Run both checkouts in turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--against", help="another checkout, with its own .venv")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.against is None:
        print(json.dumps(measure(args.bundle)))
        return
    here = Path(__file__).parents[1]
    checkouts = {"old": Path(args.against), "new": here}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for _ in range(ROUNDS):
        for name, checkout in checkouts.items():
            argv = [str(checkout.absolute() / ".venv/bin/python"), __file__, args.bundle]
            done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=checkout)
            rounds[name].append(json.loads(done.stdout.splitlines()[-1]))
    rows = {
        recipe: {name: median(each[recipe] for each in rounds[name]) for name in checkouts}
        for recipe in rounds["new"][0]
    }
    if args.json:
        print(json.dumps(rows, indent=1))
        return
    print(f"{'recipe':24}{'old, us':>10}{'new, us':>10}{'new / old':>11}")
    for recipe, row in rows.items():
        print(f"{recipe:24}{row['old']:10.1f}{row['new']:10.1f}{row['new'] / row['old']:11.2f}")


if __name__ == "__main__":
    sys.exit(main())
