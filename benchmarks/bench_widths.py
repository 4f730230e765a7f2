"""Measure what specc-kernels is for, on one model: each figure that it aims at, in one run.

    pip install ./kernels '.[compile,cpu]' gguf llama-cpp-python     # without llama-cpp-python, its lines are missing
    pip install --no-deps onnxruntime-genai                          # so may this one
    python benchmarks/bench_widths.py MODEL build/widths             # MODEL is a directory; minutes

Files are made once in the second directory: GGUF files in bf16, Q4_0 and Q4_K_M by llama.cpp's own quantiser, bundles
in fp32 and bf16, bundles that keep the blocks of the GGUF files, a 4-bit model for onnxruntime-genai. Steps follow 64
tokens, or a long context. In a round each system in turn runs some steps. A figure is the median of the rounds' ratios.
The bandwidth of a step is the size of the matrices that it reads, by its time. That of a copy counts both its reads and
its writes, of as many bytes. Without llama.cpp the 4-bit bundle is of specc's own rounding.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from bench_engines import (
    CONTEXT,
    LONG,
    Workers,
    compile_bundle,
    export,
    genai_worker,
    llama_worker,
    milliseconds,
    proportional_set_size,
    specc_worker,
)
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PROMPTS = Path(__file__).with_name("real_prompts.jsonl")
TYPES = {
    "bf16": "MOSTLY_BF16",
    "Q4_0": "MOSTLY_Q4_0",
    "Q4_K_M": "MOSTLY_Q4_K_M",
}  # of GGUF files, with llama.cpp's name
WIDTHS = (4, 8, 16)
WIDE = 15  # speculative tokens of a chain and of a tree of 16 slots
CHAIN, TREE = "verify-chain-{}", "verify-token-recycling"  # an engine runs all its slots, however few are used
STEP_RECIPES = [f"--recipe={name}" for name in ("jacobi", "token-recycling")]
WIDE_STEPS = [f"--set={name}.num_speculative_tokens={WIDE}" for name in ("jacobi", "token-recycling")]
LOADED = ("prefill", "decode", CHAIN.format(16))  # engines whose memory is measured
CONTENDERS = 3  # recipes that run on the prompts, the fastest of the compile
COPY_ORDERS = 2  # reads and writes of a copy, by its bytes
Milliseconds = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A ratio that the project wants.

    Attributes:
        title: what is compared.
        bound: the largest ratio that reaches the aim, or the smallest one.
        above: whether more is better.
    """

    title: str
    bound: float
    above: bool = False

    def reached(self, value: float) -> bool:
        """Tell whether a ratio reaches the aim."""
        return value >= self.bound if self.above else value <= self.bound


# By the titles of dividend and divisor: ratios of two steps.
STEP_AIMS = {
    ("bf16 decode", "fp32 decode"): Aim(title="decode bf16 / fp32", bound=0.55),
    ("bf16 decode, long", "bf16 decode"): Aim(title="bf16 decode after a long context / after 64 rows", bound=1.2),
    ("bf16 verify(16), long", "bf16 verify(16)"): Aim(title="bf16 verify(16), likewise", bound=1.25),
    ("bf16 tree(16), long", "bf16 tree(16)"): Aim(title="bf16 verify of a tree of 16, likewise", bound=1.25),
    ("bf16 verify(4)", "bf16 decode"): Aim(title="bf16 verify(4) / decode", bound=1.1),
    ("bf16 verify(8)", "bf16 decode"): Aim(title="bf16 verify(8) / decode", bound=1.4),
    ("bf16 verify(16)", "bf16 decode"): Aim(title="bf16 verify(16) / decode", bound=2.1),
    ("int4 verify(4)", "int4 decode"): Aim(title="int4 verify(4) / decode", bound=1.15),
    ("int4 verify(8)", "int4 decode"): Aim(title="int4 verify(8) / decode", bound=1.5),
    ("int4 verify(16)", "int4 decode"): Aim(title="int4 verify(16) / decode", bound=2.3),
    ("bf16 decode", "llama.cpp bf16"): Aim(title="decode bf16 / llama.cpp bf16", bound=0.95),
    ("int4 decode", "llama.cpp Q4_0"): Aim(title="decode int4 / llama.cpp Q4_0", bound=0.85),
    ("Q4_K_M decode", "llama.cpp Q4_K_M"): Aim(title="decode of Q4_K_M's blocks / llama.cpp Q4_K_M", bound=0.85),
    ("int4 decode", "genai int4"): Aim(title="decode int4 / onnxruntime-genai int4", bound=0.9),
}
BANDWIDTH = {
    name: Aim(title=f"{name} decode: bandwidth / a copy's", bound=0.85, above=True) for name in ("bf16", "int4")
}
SIZE = Aim(title="size of the bundle bf16 / fp32", bound=0.52)
MEMORY = Aim(title="memory that loading takes bf16 / fp32", bound=0.52)
PLAN = Aim(title="int4 target: best plan / plain decoding", bound=1.5, above=True)
AGAINST = Aim(title="int4 target: best plan / llama.cpp's fastest mode", bound=1.3, above=True)


def make_gguf(model: Path, directory: Path) -> dict[str, Path]:
    """Write the model as GGUF files, once.

    Returns:
        The files by type; none if llama.cpp is not installed.
    """
    if not (find_spec("llama_cpp") and find_spec("gguf")):
        return {}
    files = {name: directory / f"{name}.gguf" for name in TYPES}
    original = directory / "fp32.gguf"
    if not original.exists():
        script = ROOT / "specc" / "bench" / "peers" / "to_gguf.py"
        subprocess.run([sys.executable, "-P", str(script), str(model), str(original), "fp32"], check=True)
    for name, file in files.items():
        if not file.exists():
            quantise(original, file, TYPES[name])
    return files


def quantise(original: Path, file: Path, kind: str) -> None:
    """Quantise a GGUF file with llama.cpp. A half-written file never has the final name.

    Raises:
        RuntimeError: llama.cpp could not.
    """
    import ctypes

    import llama_cpp

    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_{kind}")
    partial_file = file.with_suffix(".partial")
    paths = str(original).encode(), str(partial_file).encode()
    if llama_cpp.llama_model_quantize(*paths, ctypes.byref(settings)):
        raise RuntimeError(f"llama.cpp did not quantise {original} to {kind}")
    partial_file.replace(file)


def make_bundles(model: Path, directory: Path, files: Mapping[str, Path]) -> dict[str, Path]:
    """Compile the bundles that are not in the directory yet, and return them by name."""
    short = ["--golden-tokens=8", *STEP_RECIPES, *WIDE_STEPS]
    int4 = ["--dtype=gguf"] if files else ["--dtype=int4"]
    jobs: dict[str, tuple[Path, list[str]]] = {
        "fp32": (model, ["--dtype=fp32", *short]),
        "bf16": (model, ["--dtype=bf16", *short]),
        "int4": (files.get("Q4_0", model), int4),
        "int4 widths": (files.get("Q4_0", model), [*int4, *short]),
    }
    if files:
        jobs["Q4_K_M"] = files["Q4_K_M"], ["--dtype=gguf", *short]
    bundles = {}
    for name, (source, options) in jobs.items():
        bundles[name] = directory / f"{name.replace(' ', '-')}.specc"
        if not bundles[name].exists():
            compile_bundle(source, bundles[name], *options)
    return bundles


def read_bytes(bundle: Path) -> int:
    """Return how many bytes of weights a decoding step reads: all but the tables of which it takes a row."""
    import onnx

    import specc

    graph = onnx.load(bundle / specc.load(bundle).bundle.engine("decode").file, load_external_data=False).graph
    read = {name for node in graph.node if not node.op_type.startswith("Gather") for name in node.input}
    lengths = (
        int(entry.value)
        for tensor in graph.initializer
        if tensor.name in read
        for entry in tensor.external_data
        if entry.key == "length"
    )
    return sum(lengths)


def loaded_memory(bundle: str) -> int:
    """Return how many bytes of memory it takes to load engines that were loaded before, and to run each once."""
    import specc
    from specc.runtime.sequence import Cache

    before = proportional_set_size()
    session = specc.load(bundle).conversation
    session.engines.load(*LOADED)
    cache = Cache(session.cache.store)
    for name in LOADED:
        session.engines[name].extend(cache, [1])
    return proportional_set_size() - before


def measure_memory(bundle: Path) -> int:
    """Load a bundle twice, each time in a process of its own, and return the memory of the second time."""
    for _ in range(2):  # The first time checks every file, and packs weights if they are not packed.
        with get_context("spawn").Pool(1) as pool:
            size = pool.apply(loaded_memory, (str(bundle),))
    return size


def copy_worker(pipe: Connection, size: str) -> None:
    """Answer each number of bytes with the milliseconds that a copy of so many takes, by all threads."""
    import numpy as np

    source, target = np.ones(int(size), np.uint8), np.zeros(int(size), np.uint8)
    threads = int(os.environ["SPECC_THREADS"])

    def copy(pool: ThreadPoolExecutor, count: int) -> None:
        parts = [slice(count * i // threads, count * (i + 1) // threads) for i in range(threads)]
        list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))

    with ThreadPoolExecutor(threads) as pool:
        while (count := pipe.recv()) != "stop":
            pipe.send(milliseconds(partial(copy, pool, count)))


def step_orders(long: int) -> Iterator[tuple[str, str, tuple[str, int, int]]]:
    """Yield for each step its title, its bundle, and the order: engine, tokens, rows before them.

    Args:
        long: rows of a long context.
    """
    yield "fp32 decode", "fp32", ("decode", 1, CONTEXT)
    yield "Q4_K_M decode", "Q4_K_M", ("decode", 1, CONTEXT)
    for name, bundle in (("bf16", "bf16"), ("int4", "int4 widths")):
        yield f"{name} decode", bundle, ("decode", 1, CONTEXT)
        for width in WIDTHS:
            yield f"{name} verify({width})", bundle, (CHAIN.format(width), width, CONTEXT)
    yield "bf16 tree(16)", "bf16", (TREE, WIDE + 1, CONTEXT)
    yield "bf16 decode, long", "bf16", ("decode", 1, long)
    yield "bf16 verify(16), long", "bf16", (CHAIN.format(16), 16, long)
    yield "bf16 tree(16), long", "bf16", (TREE, WIDE + 1, long)


def measure_steps(
    bundles: Mapping[str, Path],
    files: Mapping[str, Path],
    genai: Path | None,
    copies: Mapping[str, int],
    long: int,
    rounds: int,
) -> list[Milliseconds]:
    """Run all systems in turns.

    Args:
        bundles: specc's bundles by name.
        files: llama.cpp's files by type.
        genai: the model of onnxruntime-genai, or None.
        copies: bytes that are copied, by title.
        long: rows of a long context.
        rounds: how many rounds are measured.

    Returns:
        The milliseconds of each round, by title.
    """
    workers, results = Workers(), []
    steps = [step for step in step_orders(long) if step[1] in bundles]
    for bundle in dict.fromkeys(bundle for _, bundle, _ in steps):
        workers.start(bundle, specc_worker, bundles[bundle])
    for name, file in files.items():
        workers.start(f"llama.cpp {name}", partial(llama_worker, rows="F16"), file)
    if genai:
        workers.start("genai int4", genai_worker, genai)
    workers.start("copy", copy_worker, max(copies.values()))
    for _ in range(rounds):
        row = {title: workers.ask(bundle, order) for title, bundle, order in steps}
        row |= {f"llama.cpp {name}": workers.ask(f"llama.cpp {name}", 1) for name in files}
        if genai:
            row["genai int4"] = workers.ask("genai int4", "decode")
        row |= {title: workers.ask("copy", count) for title, count in copies.items()}
        results.append(row)
    workers.stop()
    return results


def step_figures(rounds: list[Milliseconds]) -> Iterator[tuple[Aim, float]]:
    """Compute the ratios of steps, and of bandwidths, of all rounds."""
    for (dividend, divisor), aim in STEP_AIMS.items():
        if {dividend, divisor} <= rounds[0].keys():
            yield aim, median(row[dividend] / row[divisor] for row in rounds)
    for name, aim in BANDWIDTH.items():
        copy = f"copy of {name}"
        yield aim, median(row[copy] / (COPY_ORDERS * row[f"{name} decode"]) for row in rounds)


def measure_plans(bundle: Path, file: Path | None, rounds: int) -> dict[str, Any]:
    """Run `specc bench` with the fastest lossless recipes of a bundle, and llama.cpp on its file if there is one."""
    import specc

    measured = specc.load(bundle).bundle.manifest.measured
    lossless = [row for row in measured if row["lossless"] and row["recipe"] != "plain"]
    best = [row["recipe"] for row in sorted(lossless, key=lambda row: -row["speedup"])[:CONTENDERS]]
    command = [sys.executable, "-m", "specc", "bench", str(bundle), "--json", f"--rounds={rounds}"]
    command += [f"--recipe={name}" for name in best] + ["--prompts", str(PROMPTS), "--max-new-tokens=48"]
    if (bundle / "chat_template.jinja").exists():
        command.append("--chat")
    if file:
        command += ["--against=llama.cpp", f"--peer-model=llama.cpp={file}"]
    report: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return report


def plan_figures(report: Mapping[str, Any]) -> Iterator[tuple[Aim, float]]:
    """Take the best plan's figures out of a report of `specc bench`: by category, over all, against the peer."""
    own = [row for row in report["rows"] if row["system"] == "specc"]
    whole = own[-1]["category"]  # The last rows of the report are over all prompts.
    best = max((row for row in own if row["category"] == whole), key=lambda row: row["speedup"])
    for row in own:
        if row["recipe"] == best["recipe"]:
            title = f"{PLAN.title} ({row['recipe']}, {row['category']})"
            yield Aim(title=title, bound=PLAN.bound, above=True), row["speedup"]
    for other in report["against"]:
        title = f"{AGAINST.title} ({other['own_recipe']}, {other['recipe']})"
        yield Aim(title=title, bound=AGAINST.bound, above=True), other["ratio"]


def bundle_size(bundle: Path) -> int:
    """Return the bytes of a bundle's files."""
    return sum(file.stat().st_size for file in bundle.iterdir())


def draw(figures: list[tuple[Aim, float]]) -> Table:
    """Draw each figure beside its aim."""
    table = Table("figure", "measured", "aim", "reached")
    for aim, value in figures:
        table.add_row(
            aim.title,
            f"{value:.3f}",
            f"{'≥' if aim.above else '≤'} {aim.bound:g}",
            "yes" if aim.reached(value) else "no",
        )
    return table


def main() -> None:
    """Make what is missing, measure, print the figures and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a Hugging Face directory, best with weights in bf16")
    parser.add_argument("directory", type=Path, help="where files, bundles and widths.json are written")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--long", type=int, default=LONG, help="rows of a long context (default %(default)s, the most)")
    parser.add_argument("--rounds", type=int, default=9, help="of steps")
    parser.add_argument("--prompt-rounds", type=int, default=3, help="of prompts; 0 runs none")
    args = parser.parse_args()
    os.environ |= {"SPECC_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads)}
    args.directory.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    files = make_gguf(args.model, args.directory)
    genai = None
    if find_spec("onnxruntime_genai"):
        fastest = ("--extra_options", "int4_accuracy_level=4")
        genai = export(args.model, args.directory / "genai-int4", "int4", args.threads, fastest)
    bundles = make_bundles(args.model, args.directory, files)
    copies = {f"copy of {name}": read_bytes(bundles[name]) for name in BANDWIDTH}
    memory = {name: measure_memory(bundles[name]) for name in ("bf16", "fp32")}
    middle = time.perf_counter()
    rounds = measure_steps(bundles, files, genai, copies, args.long, args.rounds)
    figures = list(step_figures(rounds))
    figures.append((SIZE, bundle_size(bundles["bf16"]) / bundle_size(bundles["fp32"])))
    figures.append((MEMORY, memory["bf16"] / memory["fp32"]))
    if args.prompt_rounds:
        figures += plan_figures(measure_plans(bundles["int4"], files.get("Q4_0"), args.prompt_rounds))
    seconds = {"to make files": middle - start, "to measure": time.perf_counter() - middle}
    steps = {title: round(median(row[title] for row in rounds), 2) for title in rounds[0]}
    Console(soft_wrap=True).print(draw(figures))
    print(f"milliseconds of steps: {json.dumps(steps)}")
    report = {
        "threads": args.threads,
        "rows of a long context": args.long,
        "figures": [{"title": aim.title, "value": round(value, 3), "aim": aim.bound} for aim, value in figures],
        "milliseconds": steps,
        "bytes read": copies,
        "loaded bytes": memory,
        "seconds": seconds,
        "rounds": rounds,
    }
    (args.directory / "widths.json").write_text(json.dumps(report, indent=1) + "\n")
    print(f"{seconds['to make files']:.0f} s to make files, {seconds['to measure']:.0f} s to measure")


if __name__ == "__main__":
    main()
