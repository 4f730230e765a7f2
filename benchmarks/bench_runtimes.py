"""Measure libspecc, and Node over it, beside specc's own runtime: processor time by golden case, and memory.

    cmake -S runtimes/c -B build/c && cmake --build build/c --target all specc-requests
    (cd runtimes/node && npm ci --ignore-scripts)
    python benchmarks/bench_runtimes.py build/demo.specc --library build/c/libspecc.so --node runtimes/node

Each runtime is a process of its own, with one thread. At first each decodes one case by each recipe while no other
one runs, so that the engines of the recipes are loaded: that gives its memory. PSS counts a page that others map by its
share, and the peak is that of all pages. Then the runtimes decode each golden case by each recipe in turns. What counts
is the processor time of a case, and the median over cases and rounds of Python's time by the other's: above 1 the other
is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Self

import onnxruntime

from specc.cli import console
from specc.exactness.golden import Case, read_cases

if TYPE_CHECKING:
    from rich.table import Table

PYTHON_PROGRAM = """
import json, sys, time
import specc
from specc.runtime.sampling_defaults import PLAIN_GREEDY
conversation = specc.load(sys.argv[1]).conversation
for line in sys.stdin:
    request = json.loads(line)
    recipe = request["recipe"]
    start = time.process_time()
    answer = conversation.generate(request["prompt"], request["count"], recipe=recipe, guard=False, **PLAIN_GREEDY)
    seconds = time.process_time() - start
    print(json.dumps({"tokens": list(answer.token_ids), "seconds": seconds}), flush=True)
"""
NODE_PROGRAM = """
import { createInterface } from "node:readline";
import { open } from "./index.js";
const model = await open(process.argv[1], { threads: 1 });
const session = model.session();
for await (const line of createInterface({ input: process.stdin })) {
  const { prompt, count, recipe } = JSON.parse(line);
  const start = process.cpuUsage();
  const { tokens } = await session.generate(prompt, { maxNewTokens: count, recipe });
  const { user, system } = process.cpuUsage(start);
  console.log(JSON.stringify({ tokens, seconds: (user + system) / 1e6 }));
}
await model.close();
"""


def onnxruntime_library() -> str:
    """Return the library inside the installed wheel of ONNX Runtime."""
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*")
    return str(library)


class Runtime:
    """A runtime in a process of its own. It reads a request a line, and writes an answer a line.

    Attributes:
        name: what tables call it.
    """

    def __init__(self, name: str, command: Sequence[str], variables: dict[str, str], folder: Path | None) -> None:
        """Start the process.

        Args:
            name: what tables call it.
            command: the program and its arguments.
            variables: of its environment, beside those of this process.
            folder: where it runs.
        """
        self.name = name
        environment = os.environ | {"SPECC_THREADS": "1", "OMP_NUM_THREADS": "1"} | variables
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=folder, env=environment, stdin=pipe, stdout=pipe, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def decode(self, case: Case, recipe: str) -> float:
        """Decode a case by a recipe, and return the processor seconds that it took.

        Raises:
            RuntimeError: the process ended, or its answer is not the golden one: the time of other tokens says nothing.
        """
        assert self._process.stdin and self._process.stdout
        request = {"prompt": case.prompt_ids, "count": len(case.token_ids), "recipe": recipe}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended; its reason is above")
        answer = json.loads(line)
        if answer["tokens"] != list(case.token_ids):
            raise RuntimeError(f"{self.name} gave other tokens than the golden ones by {recipe}; run specc test first")
        return float(answer["seconds"])

    def memory(self) -> tuple[float, float]:
        """Return the PSS of the process and the peak of its resident memory, in MB (10^6 bytes)."""
        process = Path("/proc") / str(self._process.pid)
        return _field(process / "smaps_rollup", "Pss:"), _field(process / "status", "VmHWM:")


def _field(file: Path, name: str) -> float:
    """Return a number of kibibytes that a file of /proc names, in MB."""
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(name)) * 1024 / 1e6


def start(name: str, bundle: Path, arguments: argparse.Namespace) -> Runtime:
    """Start a runtime.

    Args:
        name: python, c or node.
        bundle: what it decodes.
        arguments: of the command line.
    """
    path, library = str(bundle.resolve()), arguments.library.resolve()
    variables = {"SPECC_LIBRARY": str(library), "SPECC_ONNXRUNTIME": onnxruntime_library()}
    command = {
        "python": [sys.executable, "-c", PYTHON_PROGRAM, path],
        "c": [str(library.parent / "specc-requests"), path],
        "node": ["node", "--input-type=module", "--eval", NODE_PROGRAM, path],
    }[name]
    return Runtime(name, command, variables, arguments.node if name == "node" else None)


def times(
    runtimes: Sequence[Runtime], cases: Sequence[Case], recipes: Sequence[str], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return the processor seconds of each case and round, by recipe and runtime. The runtimes take turns."""
    seconds: dict[str, dict[str, list[float]]] = {r: {runtime.name: [] for runtime in runtimes} for r in recipes}
    for number in range(rounds + 1):  # The first round loads engines, and is left out.
        for case in cases:
            for recipe in recipes:
                for runtime in runtimes:
                    duration = runtime.decode(case, recipe)
                    if number:
                        seconds[recipe][runtime.name].append(duration)
    return seconds


def measure(bundle: Path, arguments: argparse.Namespace) -> None:
    """Measure one bundle, and print a table of times and one of memory."""
    names = ["python", "c", *(["node"] if arguments.node else [])]
    manifest = json.loads((bundle / "manifest.json").read_text())
    present = [recipe["name"] for recipe in manifest["recipes"]]
    recipes = [recipe for recipe in arguments.recipes if recipe in present]
    cases = read_cases(bundle / "golden.jsonl")[: arguments.cases]
    sizes = {}
    for name in names:  # One after another, since PSS shares a page among the processes that map it.
        with start(name, bundle, arguments) as runtime:
            for recipe in recipes:
                runtime.decode(cases[0], recipe)
            sizes[name] = runtime.memory()
    with ExitStack() as stack:
        runtimes = [stack.enter_context(start(name, bundle, arguments)) for name in names]
        seconds = times(runtimes, cases, recipes, arguments.rounds)
    title = f"{manifest['model']['source']}: {len(cases)} cases, {arguments.rounds} rounds"
    console.show(console.stack(speed_table(seconds, title), memory_table(sizes)))


def speed_table(seconds: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> Table:
    """Draw the times that `times` returns, and the speeds of the other runtimes by Python's."""
    names = list(next(iter(seconds.values())))
    ratios = [f"{name}: speed by python" for name in names[1:]]
    table = console.table("recipe", *(f"{name}, s a case" for name in names), *ratios, title=title)
    for recipe, by_name in seconds.items():
        medians = [f"{median(values):.4f}" for values in by_name.values()]
        pairs = [zip(by_name["python"], by_name[name], strict=True) for name in names[1:]]
        table.add_row(recipe, *medians, *(f"{median(own / other for own, other in pair):.3f}" for pair in pairs))
    return table


def memory_table(sizes: Mapping[str, tuple[float, float]]) -> Table:
    """Draw the memory of each runtime that `Runtime.memory` returns, beside Python's."""
    table = console.table("memory", "PSS, MB", "by python", "peak, MB", "by python")
    for name, (share, peak) in sizes.items():
        ratios = [f"{size / own:.2f}" for size, own in zip((share, peak), sizes["python"], strict=True)]
        table.add_row(name, f"{share:.0f}", ratios[0], f"{peak:.0f}", ratios[1])
    return table


def main() -> None:
    """Measure each bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--library", type=Path, required=True, help="libspecc.so, with specc-requests beside it")
    parser.add_argument(
        "--node", type=Path, help="the package of Node, with what it needs; without it Node is left out"
    )
    parser.add_argument(
        "--recipes",
        nargs="+",
        default=["plain", "prompt-lookup", "cascade", "early-exit", "quantized-self-draft"],
        help="those that a bundle lacks are left out",
    )
    parser.add_argument("--cases", type=int, default=4, help="golden cases, from the first one on")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for bundle in arguments.bundles:
        measure(bundle, arguments)


if __name__ == "__main__":
    main()
