"""Measure what drafters and acceptance rules take on the host, for trees of up to 64 slots at a vocabulary of 49152.

    python benchmarks/bench_host.py smol.specc             # every recipe, beside a verify step of this bundle
    python benchmarks/bench_host.py --verify-seconds 0.08  # beside a step that was recorded elsewhere
    python benchmarks/bench_host.py smol.specc --recipe dyspec --steps 50

The engines return the same random logits at each call and compute nothing. So all of a step's processor time is that of
the drafter, the rule and the loop. With --alike all rows of all engines are the same, so rules accept whole drafts.
Temperature 0 is greedy decoding, and 1 samples. Both figures are processor seconds of all threads, so they hold on a
busy machine. A verify step is a run of the narrowest chain of the bundle that has as many slots. The aim is a share
below 5 %.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import mkdtemp
from typing import Any

import numpy as np

import specc
from specc.cli import console
from specc.recipes import METHODS, Method
from specc.runtime.block import Block
from specc.runtime.call import Call
from specc.runtime.errors import RecipeError
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence
from specc.runtime.tree import Tree

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # The folder is not a package.

import toys

VOCABULARY, SLOTS, AIM = 49152, 64, 0.05
PROMPT_TOKENS, CORPUS_TOKENS = 64, 5000


class Still(toys.Toy):
    """A runner whose outputs never change, so that its runs cost nothing.

    Attributes:
        alike: whether all rows of all runners are the same.
    """

    alike = False

    def __init__(self, block: Block, rows: toys.ToyKV, vocabulary: int) -> None:
        self.block, self.rows, self.vocabulary = block, rows, vocabulary
        self.stack = toys.HEADS[block.model].stack if block.model in toys.HEADS else 1
        self.inputs, self.outputs = self._make_inputs(), self._make_outputs()
        rng = np.random.default_rng(0 if self.alike else len(block.model))
        rows_of_logits = 1 if block.last_row else block.slots
        logits_NV = rng.normal(scale=3, size=(rows_of_logits, vocabulary)).astype(np.float32)
        if self.alike:
            logits_NV[:] = logits_NV[0]
        for name, array in self.outputs.items():
            if name == "ids":
                array[0] = logits_NV.argmax(-1)
            elif name == "logits":
                array[0] = logits_NV
            elif name in ("top_ids", "top_logprobs"):
                best_NK = np.argsort(-logits_NV, -1)[:, : array.shape[-1]]
                total_N1 = np.log(np.exp(logits_NV).sum(-1, keepdims=True))
                values_NK = best_NK if name == "top_ids" else np.take_along_axis(logits_NV, best_NK, -1) - total_N1
                array[0] = values_NK if self.stack == 1 else values_NK[:, None]

    def run(self) -> None:
        """Compute nothing."""


def corpus(vocabulary: int) -> Path:
    """Write the index of a random text, and return its file."""
    tokens = np.random.default_rng(0).zipf(1.2, CORPUS_TOKENS) % vocabulary
    return toys.write_corpus(tokens.tolist(), Path(mkdtemp()))


def wide(method: Method, facts: Any) -> dict[str, Any]:
    """Return values of a method's parameters with a draft as wide as this benchmark asks for, or the defaults."""
    values = {"num_speculative_tokens": SLOTS - 1} if "num_speculative_tokens" in method.parameters else {}
    try:
        method.plan(method.settle(values), facts)
    except RecipeError:
        return {}
    return values


def host_seconds(name: str, temperature: float, steps: int) -> tuple[int, float]:
    """Return the slots of a recipe's verify step, and the median processor seconds of a step on the host."""
    method = METHODS[name]
    assistant = "assistant-model" in method.needs
    world = toys.World(VOCABULARY, Still)
    decoder = world.method(name, assistant, **wide(method, toys.toy_facts(method, VOCABULARY, assistant)))
    prompt = (np.random.default_rng(1).zipf(1.2, PROMPT_TOKENS) % VOCABULARY).tolist()
    sampling = Sampling(temperature, rng=SeededRng(0))
    seconds, limit = [], toys.CAPACITY - 2 * SLOTS
    while len(seconds) < steps:
        world.caches.clear()
        world.cache = world.caches["target"]
        seq = Sequence(list(prompt), world.caches, sampling)
        world.prefill.extend(seq.cache, seq.tokens[:-1])
        decoding = decoder.open(seq)
        while len(seconds) < steps and len(seq.tokens) < limit:
            start = time.process_time()
            toys.step(decoding)
            seconds.append(time.process_time() - start)
    return max(engine.slots for engine in decoder.verifiers), median(seconds)


def verify_seconds(bundle: Path) -> Callable[[int], float]:
    """Return a function from a number of slots to the processor seconds of a verify step of a bundle."""
    model = specc.load(bundle)
    specs = [spec for spec in model.engines.specs() if spec.block.is_chain and spec.block.model == "target"]
    own = sorted((s for s in specs if s.block.lanes == 1 and s.block.cache == "target"), key=lambda s: s.block.slots)
    seconds_of: dict[str, float] = {}

    def seconds(slots: int) -> float:
        name = next((spec.name for spec in own if spec.block.slots >= slots), own[-1].name)
        if name not in seconds_of:
            engine, cache = model.engines[name], model.conversation.cache
            call = Call(engine, Cache(cache.store), 0, [1] * engine.slots, Tree.chain(engine.slots))
            runs = []
            for _ in range(5):
                start = time.process_time()
                call.run()
                runs.append(time.process_time() - start)
            seconds_of[name] = median(runs)
        return seconds_of[name]

    return seconds


def main() -> None:
    """Measure recipes and print a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="?", type=Path)
    parser.add_argument("--verify-seconds", type=float, help="of a verify step, if no bundle is named")
    parser.add_argument("--recipe", default="", help="these recipes alone, with commas")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--alike", action="store_true", help="all rows are the same, so that drafts are accepted")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if (arguments.bundle is None) == (arguments.verify_seconds is None):
        parser.error("give a bundle, or --verify-seconds")
    reference = verify_seconds(arguments.bundle) if arguments.bundle else lambda slots: float(arguments.verify_seconds)
    toys.corpus, Still.alike = corpus, arguments.alike
    rows = []
    for name in arguments.recipe.split(",") if arguments.recipe else METHODS:
        for temperature in (0.0, 1.0):
            slots, seconds = host_seconds(name, temperature, arguments.steps)
            rows.append((name, temperature, slots, 1e3 * seconds, seconds / reference(slots)))
            print(f"{name} at temperature {temperature:g}: {rows[-1][-1]:.1%}", file=sys.stderr)
    titles = ("recipe", "temperature", "slots", "host, ms", "share")
    if arguments.json:
        print(json.dumps([dict(zip(titles, row, strict=True)) for row in rows]))
        return
    table = console.table(*titles, title=f"processor time of a step on the host; the aim is a share below {AIM:.0%}")
    for name, temperature, slots, milliseconds, share in sorted(rows, key=lambda row: -row[-1]):
        style = "bold" if share >= AIM else None
        table.add_row(name, f"{temperature:g}", str(slots), f"{milliseconds:.2f}", f"{share:.1%}", style=style)
    console.show(table)


if __name__ == "__main__":
    main()
