"""Measure libspecc, and Node over it, beside specc's own runtime: processor time by golden case, and memory.

    cmake -S runtimes/c -B build/c && cmake --build build/c && (cd runtimes/node && npm ci --ignore-scripts)
    python benchmarks/bench_runtimes.py build/demo.specc --library build/c/libspecc.so --node runtimes/node

Each golden case is decoded by each recipe in turns: by Python, by libspecc in this process, and by Node in another one.
All have one thread. What counts is the processor time that a case takes, and the median over cases and rounds of
Python's time by the other's: above 1 the other is faster. Before that, a process of each runtime decodes one case by
each recipe, so that the engines of the recipes are loaded. What counts there is the memory of the process alone and its
share of what others map, too (PSS).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

os.environ["SPECC_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # before ONNX Runtime is loaded

import onnxruntime

import specc
from specc.exactness.golden import Case, read_cases
from specc.runtime.sampling_defaults import PLAIN_GREEDY

# Decodes a case by a recipe, and returns the processor seconds that it took.
Decode = Callable[[Case, str], float]
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


def check(tokens: Sequence[int], case: Case, runtime: str) -> None:
    """Raise RuntimeError if an answer is not the golden one: the time of other tokens would say nothing."""
    if list(tokens) != list(case.token_ids):
        raise RuntimeError(f"{runtime} gave other tokens than the golden ones; run specc test first")


def by_python(bundle: Path) -> Decode:
    """Open a bundle by specc."""
    conversation = specc.load(bundle).conversation

    def decode(case: Case, recipe: str) -> float:
        start = time.process_time()
        answer = conversation.generate(case.prompt_ids, len(case.token_ids), recipe=recipe, guard=False, **PLAIN_GREEDY)
        seconds = time.process_time() - start
        check(answer.token_ids, case, "specc")
        return seconds

    return decode


def by_c(bundle: Path, library: Path) -> Decode:
    """Open a bundle by libspecc, in this process."""
    lib = ctypes.CDLL(str(library))
    lib.specc_error.restype = ctypes.c_char_p
    take = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int64), ctypes.c_size_t)
    answer: list[int] = []

    @take
    def on_tokens(_: Any, tokens: Any, count: int) -> int:
        answer.extend(tokens[:count])
        return 0

    def call(status: int) -> None:
        if status:
            raise RuntimeError(lib.specc_error().decode())

    class Options(ctypes.Structure):
        """`specc_options` of specc.h."""

        _fields_ = [
            ("onnxruntime", ctypes.c_char_p),
            ("threads", ctypes.c_int),
            ("error", ctypes.c_char_p),
            ("error_size", ctypes.c_size_t),
        ]

    model, session = ctypes.c_void_p(), ctypes.c_void_p()
    options = Options(onnxruntime_library().encode(), 1)
    call(lib.specc_open(str(bundle).encode(), ctypes.byref(options), ctypes.byref(model)))
    call(lib.specc_session_open(model, ctypes.byref(session)))

    def decode(case: Case, recipe: str) -> float:
        answer.clear()
        prompt = (ctypes.c_int64 * len(case.prompt_ids))(*case.prompt_ids)
        count, length = ctypes.c_size_t(len(case.token_ids)), ctypes.c_size_t(len(prompt))
        start = time.process_time()
        call(lib.specc_generate(session, prompt, length, recipe.encode(), count, on_tokens, None, None))
        seconds = time.process_time() - start
        check(answer, case, "libspecc")
        return seconds

    return decode


def by_node(bundle: Path, library: Path, package: Path) -> Decode:
    """Open a bundle by Node over libspecc, in a process of its own."""
    environment = os.environ | {"SPECC_LIBRARY": str(library.resolve()), "SPECC_ONNXRUNTIME": onnxruntime_library()}
    command = ["node", "--input-type=module", "--eval", NODE_PROGRAM, str(bundle.resolve())]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=package, env=environment, stdin=pipe, stdout=pipe, text=True)
    assert process.stdin and process.stdout
    requests, answers = process.stdin, process.stdout

    def decode(case: Case, recipe: str) -> float:
        request = {"prompt": case.prompt_ids, "count": len(case.token_ids), "recipe": recipe}
        print(json.dumps(request), file=requests, flush=True)
        line = answers.readline()
        if not line:
            raise RuntimeError("Node ended; its reason is above")
        answer = json.loads(line)
        check(answer["tokens"], case, "Node")
        return float(answer["seconds"])

    return decode


def times(
    runtimes: dict[str, Decode], cases: Sequence[Case], recipes: Sequence[str], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Return the processor seconds of each case and round, by recipe and runtime. The runtimes take turns."""
    seconds: dict[str, dict[str, list[float]]] = {recipe: {name: [] for name in runtimes} for recipe in recipes}
    for number in range(rounds + 1):  # The first round loads engines, and is left out.
        for case in cases:
            for recipe in recipes:
                for name, decode in runtimes.items():
                    duration = decode(case, recipe)
                    if number:
                        seconds[recipe][name].append(duration)
    return seconds


def memory(runtime: str, arguments: argparse.Namespace) -> float:
    """Return the memory of a process of a runtime that decodes one case by each recipe, in MB (10^6 bytes)."""
    options = ["--library", str(arguments.library), "--recipes", *arguments.recipes, "--memory-of", runtime]
    command = [sys.executable, __file__, str(arguments.bundle), *options]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def own_memory() -> float:
    """Return the PSS of this process, in MB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--library", type=Path, required=True, help="libspecc.so")
    parser.add_argument(
        "--node", type=Path, help="the package of Node, with what it needs; without it Node is left out"
    )
    parser.add_argument("--recipes", nargs="+", default=["plain", "prompt-lookup", "cascade"])
    parser.add_argument("--cases", type=int, default=6, help="golden cases, from the first one on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory-of", choices=["python", "c"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    cases = read_cases(arguments.bundle / "golden.jsonl")[: arguments.cases]
    if arguments.memory_of:
        python = arguments.memory_of == "python"
        decode = by_python(arguments.bundle) if python else by_c(arguments.bundle, arguments.library)
        for recipe in arguments.recipes:
            decode(cases[0], recipe)
        print(own_memory())
        return
    # Before this process maps the weights: PSS shares a page among the processes that map it.
    sizes = {name: memory(name, arguments) for name in ("python", "c")}
    runtimes = {"python": by_python(arguments.bundle), "c": by_c(arguments.bundle, arguments.library)}
    if arguments.node:
        runtimes["node"] = by_node(arguments.bundle, arguments.library, arguments.node)
    seconds = times(runtimes, cases, arguments.recipes, arguments.rounds)
    table = Table(
        "recipe",
        *(f"{name}, s a case" for name in runtimes),
        *(f"speed of {n} by python" for n in runtimes if n != "python"),
    )
    for recipe, by_name in seconds.items():
        medians = [f"{median(values):.4f}" for values in by_name.values()]
        pairs = [zip(by_name["python"], by_name[name], strict=True) for name in runtimes if name != "python"]
        table.add_row(recipe, *medians, *(f"{median(own / other for own, other in pair):.3f}" for pair in pairs))
    console = Console()
    console.print(table)
    console.print(
        f"memory: python {sizes['python']:.0f} MB, c {sizes['c']:.0f} MB, {sizes['c'] / sizes['python']:.2f} times"
    )


if __name__ == "__main__":
    main()
