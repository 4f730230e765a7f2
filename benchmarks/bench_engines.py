"""Measure engine steps beside onnxruntime-genai's and llama.cpp's, on a random Llama of SmolLM2-135M's shape.

    pip install -e '.[compile,cpu]'
    pip install onnxruntime-genai==0.18.0 llama-cpp-python gguf --no-deps  # the peers; the second may be left out
    python benchmarks/bench_engines.py build/bench                         # takes minutes; prints, writes bench.json

All systems decode greedily from the same 64 tokens, on the same number of threads, each in a process of its own: in
fp32, and with 4 bits a weight. specc's engines run after 1024 tokens, too. llama.cpp's batches give logits for each of
their tokens, as the verify engines do. In a round, each system in turn runs some steps. A figure is the median over the
rounds of a round's median, and a ratio is the median of the rounds' ratios. Compile time and memory are those of the
default recipes. The memory and the second load of a session are those of prefill, decode, two chains and a draft, which
is in fp32 or in 4 bits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

CONTEXT, LONG = 64, 1024  # Rows before a step.
STEPS, WARM_UP_STEPS = 15, 3  # In each measurement.
# By title: the name of an engine, its tokens, and the rows before them.
ENGINES = {
    "decode": ("decode", 1, CONTEXT), "decode int4": ("draft-quantized-self-draft", 1, CONTEXT),
    "verify(8)": ("verify-chain-8", 8, CONTEXT), "verify(12)": ("verify-chain-12", 12, CONTEXT),
    "verify(16)": ("verify-token-recycling", 16, CONTEXT), "chain(16)": ("verify-chain-16", 16, CONTEXT),
    "decode after 1024": ("decode", 1, LONG), "verify(16) after 1024": ("verify-token-recycling", 16, LONG),
    "chain(16) after 1024": ("verify-chain-16", 16, LONG),
}  # fmt: skip
WIDTHS = (1, 8, 16)  # Tokens in a batch of llama.cpp.
TARGET = ("prefill", "decode", "verify-chain-6", "verify-chain-12")
LOADED = {"layer-skip draft": (*TARGET, "draft-layer-skip"), "4-bit draft": (*TARGET, "draft-quantized-self-draft")}
# By title: the dividend and the divisor.
RATIOS = {
    "decode / genai": ("decode", "genai"), "verify(8) / genai": ("verify(8)", "genai"),
    "verify(16) / genai": ("verify(16)", "genai"), "decode int4 / genai int4": ("decode int4", "genai int4"),
    "decode / llama.cpp": ("decode", "llama.cpp(1)"), "verify(8) / llama.cpp": ("verify(8)", "llama.cpp(8)"),
    "verify(16) / llama.cpp": ("verify(16)", "llama.cpp(16)"), "chain(16) / llama.cpp": ("chain(16)", "llama.cpp(16)"),
    "decode int4 / decode": ("decode int4", "decode"), "verify(12) / decode": ("verify(12)", "decode"),
    "decode after 1024 / after 64": ("decode after 1024", "decode"),
    "verify(16) after 1024 / after 64": ("verify(16) after 1024", "verify(16)"),
    "chain(16) after 1024 / after 64": ("chain(16) after 1024", "chain(16)"),
}  # fmt: skip


def make_model(directory: Path) -> None:
    """Write a model of SmolLM2-135M's shape with random weights and the demo model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        max_position_embeddings=2048,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(Path(__file__).parents[1] / "examples" / "pycode-10m").save_pretrained(directory)


def load_again(bundle: str, names: tuple[str, ...]) -> tuple[float, int]:
    """Load engines that were loaded before, and run each once.

    Returns:
        The seconds of the load, and the memory of this process in bytes.
    """
    import specc
    from specc.runtime.sequence import Cache

    start = time.perf_counter()
    session = specc.load(bundle).conversation
    session.engines.load(*names)
    seconds = time.perf_counter() - start
    cache = Cache(session.cache.store)
    for name in names:
        session.engines[name].extend(cache, [1])
    return seconds, proportional_set_size()


def specc_worker(pipe: Connection, bundle: str) -> None:
    """Answer orders (engine, tokens, context) with the milliseconds of a step."""
    import numpy as np

    import specc
    from specc.runtime.call import Call
    from specc.runtime.sequence import Cache
    from specc.runtime.tree import Tree

    session = specc.load(bundle).conversation
    prompt = np.random.default_rng(0).integers(1, 4000, LONG).tolist()
    caches: dict[int, Cache] = {}  # They share a store: the rows of the shorter are the first of the longer.
    while (order := pipe.recv()) != "stop":
        name, tokens, context = order
        if context not in caches:
            caches[context] = Cache(session.cache.store)
            session.engines["prefill"].extend(caches[context], prompt[:context])
        engine = session.engines[name]
        topology = engine.block.topology
        tree = topology if isinstance(topology, Tree) and tokens == engine.slots else Tree.chain(tokens)
        pipe.send(milliseconds(Call(engine, caches[context], 0, prompt[:tokens], tree).run))


def proportional_set_size() -> int:
    """Return the memory of this process in bytes. Shared pages count in part."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def genai_worker(pipe: Connection, directory: str) -> None:
    """Answer each order with the milliseconds of a decoding step of onnxruntime-genai."""
    import numpy as np
    import onnxruntime_genai as og

    model = og.Model(directory)
    prompt = np.random.default_rng(0).integers(1, 4000, CONTEXT).tolist()
    length = CONTEXT + 4 * STEPS
    while pipe.recv() != "stop":
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=length, min_length=length, do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(prompt)
        pipe.send(milliseconds(generator.generate_next_token))


def llama_worker(pipe: Connection, gguf: str, rows: str = "F32") -> None:
    """Answer each width with the milliseconds of a batch of so many tokens of llama.cpp.

    Args:
        pipe: brings the orders.
        gguf: the model's file.
        rows: the type of keys and values, as ggml names it.
    """
    import llama_cpp
    import numpy as np

    threads, row_type = int(os.environ["SPECC_THREADS"]), getattr(llama_cpp, f"GGML_TYPE_{rows}")
    model = llama_cpp.Llama(
        gguf,
        n_ctx=2048,
        n_threads=threads,
        n_threads_batch=threads,
        type_k=row_type,
        type_v=row_type,
        logits_all=True,
        verbose=False,
    )
    prompt = np.random.default_rng(0).integers(1, 4000, CONTEXT).tolist()
    model.eval(prompt)

    def step(width: int) -> None:
        model._ctx.kv_cache_seq_rm(-1, CONTEXT, -1)
        model._batch.set_batch(prompt[:width], CONTEXT, True)
        model._ctx.decode(model._batch)

    while (width := pipe.recv()) != "stop":
        pipe.send(milliseconds(partial(step, width)))


def milliseconds(step: Callable[[], Any]) -> float:
    """Return the median time of a step, after some steps that warm up."""
    seconds = []
    for _ in range(STEPS + WARM_UP_STEPS):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return median(seconds[WARM_UP_STEPS:]) * 1000


def compile_bundle(model: Path, bundle: Path, *options: str) -> dict[str, Any]:
    """Compile the model in a process of its own, and return what `specc compile --json` prints."""
    command = ["specc", "compile", str(model), "-o", str(bundle), "--overwrite", "--json", *options]
    result = subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.PIPE)
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def compile_with_widths(model: Path, bundle: Path) -> None:
    """Compile the model with wide chains and an fp32 draft beside the 4-bit one."""
    recipes = ("prompt-lookup", "token-recycling", "jacobi", "layer-skip", "quantized-self-draft")
    options = [f"--recipe={name}" for name in recipes]
    options += [f"--set={name}.num_speculative_tokens=15" for name in ("token-recycling", "jacobi")]
    compile_bundle(model, bundle, *options, "--draft-dtype=fp32")


class Workers:
    """The processes that measure, one for each system."""

    def __init__(self) -> None:
        self.context = get_context("spawn")
        self.pipes: dict[str, Connection] = {}

    def start(self, name: str, target: Callable[[Connection, str], None], argument: Path | int) -> None:
        """Start a process under a name. It gets its argument as text."""
        self.pipes[name], other_end = self.context.Pipe()
        self.context.Process(target=target, args=(other_end, str(argument)), daemon=True).start()

    def ask(self, name: str, order: Any) -> float:
        """Send an order and wait for its milliseconds."""
        self.pipes[name].send(order)
        answer: float = self.pipes[name].recv()
        return answer

    def stop(self) -> None:
        """End all processes."""
        for pipe in self.pipes.values():
            pipe.send("stop")


def measure_memory(bundle: Path) -> dict[str, tuple[float, int]]:
    """Load each set of engines of LOADED a second time, in a process of its own.

    The first load checks every file and packs the weights.

    Returns:
        The seconds of the second load and the memory in bytes, by title.
    """
    import specc

    for names in LOADED.values():
        specc.load(bundle).engines.load(*names)
    memory = {}
    for title, names in LOADED.items():
        with get_context("spawn").Pool(1) as pool:
            memory[title] = pool.apply(load_again, (str(bundle), names))
    return memory


def measure_steps(bundle: Path, genai: dict[str, Path], model: Path, rounds: int) -> list[dict[str, float]]:
    """Run all systems in turns.

    Args:
        bundle: the bundle with all widths.
        genai: directories of onnxruntime-genai's models, by title.
        model: the original model, which is converted for llama.cpp if that is installed.
        rounds: how many rounds are measured.

    Returns:
        The milliseconds of each round, by title.
    """
    workers = Workers()
    workers.start("specc", specc_worker, bundle)
    for title, directory in genai.items():
        workers.start(title, genai_worker, directory)
    widths = WIDTHS if find_spec("llama_cpp") and find_spec("gguf") else ()
    if widths:
        workers.start("llama.cpp", llama_worker, to_gguf(model))
    results = []
    for _ in range(rounds):
        row = {title: workers.ask(title, "decode") for title in genai}
        row |= {f"llama.cpp({width})": workers.ask("llama.cpp", width) for width in widths}
        row |= {title: workers.ask("specc", step) for title, step in ENGINES.items()}
        results.append(row)
    workers.stop()
    return results


def main() -> None:
    """Compile, measure, print the report and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where models, bundles and bench.json are written")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    os.environ |= {"SPECC_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads)}
    model, bundle = args.directory / "model", args.directory / "widths.specc"
    if not model.exists():
        make_model(model)
    genai = {
        "genai": export(model, args.directory / "genai-fp32", "fp32", args.threads),
        "genai int4": export(model, args.directory / "genai-int4", "int4", args.threads),
    }
    compiled = compile_bundle(model, args.directory / "default.specc")
    compile_with_widths(model, bundle)
    memory = measure_memory(bundle)
    rounds = measure_steps(bundle, genai, model, args.rounds)
    weights = (model / "model.safetensors").stat().st_size
    titles = rounds[0].keys()
    report = {
        "threads": args.threads,
        "rounds": rounds,
        "milliseconds": {title: round(median(row[title] for row in rounds), 2) for title in titles},
        "ratios": {
            title: round(median(row[a] / row[b] for row in rounds), 3)
            for title, (a, b) in RATIOS.items()
            if b in titles
        },
        "compile_seconds": compiled["seconds"],
        "compile_peak_to_weights": round(compiled["peak_rss_bytes"] / compiled["weights_bytes"], 2),
        "session_pss_to_weights": {title: round(size / weights, 3) for title, (_, size) in memory.items()},
        "second_load_seconds": {title: round(seconds, 2) for title, (seconds, _) in memory.items()},
    }
    (args.directory / "bench.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "rounds"}, indent=1))


def to_gguf(model: Path) -> Path:
    """Convert the model to float32 in llama.cpp's form, once."""
    file = model / "fp32.gguf"
    if not file.exists():
        script = Path(__file__).parents[1] / "specc" / "bench" / "peers" / "to_gguf.py"
        subprocess.run([sys.executable, "-P", str(script), str(model), str(file), "fp32"], check=True)
    return file


def export(model: Path, directory: Path, precision: str, threads: int, more: Sequence[str] = ()) -> Path:
    """Build the model with onnxruntime-genai's own builder, once, and return its directory.

    Args:
        model: a Hugging Face directory.
        directory: where the model is written.
        precision: the builder's name of the weights' type.
        threads: how many the model runs on.
        more: further options of the builder.
    """
    if not directory.exists():
        options = ["-m", str(model), "-o", str(directory), "-p", precision, "-e", "cpu", *more]
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        config = directory / "genai_config.json"
        settings = json.loads(config.read_text())
        settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
        config.write_text(json.dumps(settings))
    return directory


if __name__ == "__main__":
    main()
