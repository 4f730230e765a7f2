"""Engine steps beside onnxruntime-genai's and llama.cpp's, on a random-weights Llama of SmolLM2-135M's shape.

    pip install -e '.[compile,cpu]'
    pip install onnxruntime-genai==0.18.0 llama-cpp-python gguf --no-deps  # peers; the second may be left out
    python benchmarks/bench_engines.py build/bench                         # some minutes; prints and writes bench.json

All decode greedily from the same 64 tokens on the same number of threads, each in its own process: fp32, and with 4
bits a weight; specc's engines after 1024 tokens too. llama.cpp's batches give logits for each of their tokens, as our
verify does. A round gives each in turn so many steps; the figure is the median over rounds of a round's
median, and the ratio the median of the rounds' ratios. Compile time and memory are those of the default recipes; a
session's memory and second load those of prefill, decode, two chains and a draft, fp32 or of 4 bits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

CONTEXT = 64
STEPS = 15
LONG = 1024
ENGINES = {  # by name; tokens, and rows before them
    "decode": ("decode", 1, CONTEXT), "decode int4": ("draft-quantized-self-draft", 1, CONTEXT),
    "verify(8)": ("verify-chain-12", 8, CONTEXT), "verify(12)": ("verify-chain-12", 12, CONTEXT),
    "verify(16)": ("verify-token-recycling", 16, CONTEXT), "chain(16)": ("verify-chain-16", 16, CONTEXT),
    "decode after 1024": ("decode", 1, LONG), "verify(16) after 1024": ("verify-token-recycling", 16, LONG),
    "chain(16) after 1024": ("verify-chain-16", 16, LONG),
}  # fmt: skip
WIDTHS = (1, 8, 16)  # of llama.cpp's batches
TARGET = ("prefill", "decode", "verify-chain-6", "verify-chain-12")
LOADED = {"layer-skip draft": (*TARGET, "draft-layer-skip"), "4-bit draft": (*TARGET, "draft-quantized-self-draft")}
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
    """SmolLM2-135M's shape, random weights, the demo model's tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, tie_word_embeddings=True, max_position_embeddings=2048,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    AutoTokenizer.from_pretrained(Path(__file__).parents[1] / "examples" / "pycode-10m").save_pretrained(directory)


def loaded(bundle: str, names: tuple[str, ...]) -> tuple[float, int]:
    """Seconds to load these engines a second time, and the memory of a process that has run them."""
    import specc
    from specc.runtime.sequence import Cache

    start = time.perf_counter()
    session = specc.load(bundle)
    session.engines.load(*names)
    seconds = time.perf_counter() - start
    cache = Cache(session.cache.store)
    for name in names:
        session.engines[name].extend(cache, [1])
    return seconds, pss()


def specc_worker(pipe: Connection, bundle: str) -> None:
    """On (NAME, TOKENS, CONTEXT), milliseconds of a step."""
    import numpy as np

    import specc
    from specc.runtime.sequence import Cache
    from specc.runtime.tree import Tree

    session = specc.load(bundle)
    prompt = np.random.default_rng(0).integers(1, 4000, LONG).tolist()
    caches = {}
    for context in (CONTEXT, LONG):  # the rows of the shorter are the first of the longer
        caches[context] = Cache(session.cache.store)
        session.engines["prefill"].extend(caches[context], prompt[:context])
    while (order := pipe.recv()) != "stop":
        name, tokens, context = order
        engine = session.engines[name]
        tree = engine.block.topology if tokens == engine.slots else Tree.chain(tokens)
        pipe.send(timed(partial(engine.run, caches[context], prompt[:tokens], tree)))


def pss() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024


def genai_worker(pipe: Connection, directory: str) -> None:
    import numpy as np
    import onnxruntime_genai as og

    model = og.Model(directory)
    prompt = np.random.default_rng(0).integers(1, 4000, CONTEXT).tolist()
    while pipe.recv() != "stop":
        params = og.GeneratorParams(model)
        params.set_search_options(max_length=CONTEXT + 4 * STEPS, min_length=CONTEXT + 4 * STEPS, do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(prompt)
        pipe.send(timed(generator.generate_next_token))


def llama_worker(pipe: Connection, gguf: str) -> None:
    """On a width, milliseconds of a batch of so many tokens, f32 all through."""
    import llama_cpp
    import numpy as np

    threads, f32 = int(os.environ["SPECC_THREADS"]), llama_cpp.GGML_TYPE_F32
    model = llama_cpp.Llama(gguf, n_ctx=2048, n_threads=threads, n_threads_batch=threads, type_k=f32, type_v=f32,
                            logits_all=True, verbose=False)  # fmt: skip
    prompt = np.random.default_rng(0).integers(1, 4000, CONTEXT).tolist()
    model.eval(prompt)

    def step(width: int) -> None:
        model._ctx.kv_cache_seq_rm(-1, CONTEXT, -1)
        model._batch.set_batch(prompt[:width], CONTEXT, True)
        model._ctx.decode(model._batch)

    while (width := pipe.recv()) != "stop":
        pipe.send(timed(partial(step, width)))


def timed(step: Callable[[], Any]) -> float:
    """The median milliseconds of a step, after three to warm up."""
    seconds = []
    for _ in range(STEPS + 3):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return median(seconds[3:]) * 1000


def compile_bundle(model: Path, bundle: Path, *options: str) -> dict[str, Any]:
    command = ["specc", "compile", str(model), "-o", str(bundle), "--overwrite", "--json", *options]
    made = subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.PIPE)
    return json.loads(made.stdout)


def main() -> None:
    import specc

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where models, bundles and bench.json go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    os.environ |= {"SPECC_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads)}
    model = args.directory / "model"
    if not model.exists():
        make_model(model)
    peers = {"genai": export(model, args, "fp32"), "genai int4": export(model, args, "int4")}
    compiled = compile_bundle(model, args.directory / "default.specc")
    recipes = ("prompt-lookup", "token-recycling", "jacobi", "layer-skip", "quantized-self-draft")
    widths = [f"--recipe={name}" for name in recipes]
    widths += [f"--set={name}.num_speculative_tokens=15" for name in ("token-recycling", "jacobi")]
    widths += ["--draft-dtype=fp32"]
    compile_bundle(model, args.directory / "widths.specc", *widths)
    bundle, context = args.directory / "widths.specc", get_context("spawn")
    for names in LOADED.values():
        specc.load(bundle).engines.load(*names)  # the first load checks every file, and packs
    memory = {}
    for title, names in LOADED.items():
        with context.Pool(1) as pool:
            memory[title] = pool.apply(loaded, (str(bundle), names))
    workers = {}
    llama = [("llama.cpp", llama_worker, to_gguf(model))] if find_spec("llama_cpp") and find_spec("gguf") else []
    for name, target, what in [
        ("specc", specc_worker, bundle),
        *((name, genai_worker, directory) for name, directory in peers.items()),
        *llama,
    ]:
        pipe, theirs = context.Pipe()
        context.Process(target=target, args=(theirs, str(what)), daemon=True).start()
        workers[name] = pipe

    def ask(worker: str, order: Any) -> Any:
        workers[worker].send(order)
        return workers[worker].recv()

    rounds = []
    for _ in range(args.rounds):
        row = {name: ask(name, "decode") for name in peers}
        row |= {f"{name}({width})": ask(name, width) for name, *_ in llama for width in WIDTHS}
        rounds.append(row | {name: ask("specc", step) for name, step in ENGINES.items()})
    for pipe in workers.values():
        pipe.send("stop")
    parameters = (model / "model.safetensors").stat().st_size
    report = {
        "threads": args.threads, "rounds": rounds,
        "milliseconds": {k: round(median(r[k] for r in rounds), 2) for k in rounds[0]},
        "ratios": {k: round(median(r[a] / r[b] for r in rounds), 3) for k, (a, b) in RATIOS.items() if b in rounds[0]},
        "compile_seconds": compiled["seconds"],
        "compile_peak_to_weights": round(compiled["peak_rss_bytes"] / compiled["weights_bytes"], 2),
        "session_pss_to_weights": {title: round(held / parameters, 3) for title, (_, held) in memory.items()},
        "second_load_seconds": {title: round(seconds, 2) for title, (seconds, _) in memory.items()},
    }  # fmt: skip
    (args.directory / "bench.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "rounds"}, indent=1))


def to_gguf(model: Path) -> Path:
    """The model as llama.cpp reads it, float32."""
    file = model / "fp32.gguf"
    if not file.exists():
        script = Path(__file__).parent.parent / "specc" / "bench" / "peers" / "to_gguf.py"
        subprocess.run([sys.executable, "-P", str(script), str(model), str(file), "fp32"], check=True)
    return file


def export(model: Path, args: argparse.Namespace, precision: str) -> Path:
    """The model as onnxruntime-genai's own builder writes it."""
    directory = args.directory / f"genai-{precision}"
    if not directory.exists():
        names = ["-m", str(model), "-o", str(directory), "-p", precision, "-e", "cpu"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([sys.executable, "-m", "onnxruntime_genai.models.builder", *names], check=True, **quiet)
        settings = json.loads((directory / "genai_config.json").read_text())
        settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = args.threads
        (directory / "genai_config.json").write_text(json.dumps(settings))
    return directory


if __name__ == "__main__":
    main()
