"""Engine steps beside onnxruntime-genai's, on a random-weights Llama of SmolLM2-135M's shape, fp32.

    pip install -e '.[compile]' onnxruntime-genai==0.18.0 --no-deps   # the peer; ONNX Runtime itself is there
    python examples/bench_engines.py build/bench                      # some minutes; prints and writes bench.json

Both decode greedily from the same 64 tokens on the same number of threads, each in its own process. A round gives
each in turn so many steps; the figure is the median over rounds of a round's median, and the ratio the median of the
rounds' ratios. Compile time and memory are those of the default recipes.
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
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

CONTEXT = 64
STEPS = 15
ENGINES = {"decode": "decode", "verify(8)": "verify-chain-8", "verify(16)": "verify-token-recycling"}


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
    AutoTokenizer.from_pretrained(Path(__file__).with_name("pycode-10m")).save_pretrained(directory)


def specc_worker(pipe: Connection, bundle: str) -> None:
    """On "NAME", milliseconds of so many runs of that engine; on "memory", this process's proportional set size."""
    import numpy as np

    import specc
    from specc.runtime.sequence import Cache
    from specc.runtime.tree import Tree

    session = specc.load(bundle)
    prompt = np.random.default_rng(0).integers(1, 4000, CONTEXT).tolist()
    cache = Cache(session.cache.store)
    session.engines["prefill"].extend(cache, prompt)
    while (order := pipe.recv()) != "stop":
        if order == "memory":
            recipes = [r.name for r in session.bundle.manifest.recipes]
            pipe.send({name: pss(session, name) for name in recipes}[recipes[-1]])
            continue
        engine = session.engines[order]
        topology = engine.block.topology
        tree = topology if isinstance(topology, Tree) else Tree.chain(engine.slots)
        pipe.send(timed(partial(engine.run, cache, prompt[: engine.slots], tree)))


def pss(session: Any, recipe: str) -> int:
    session.generate([1, 2, 3], 8, recipe=recipe, ignore_eos=True)
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="where models, bundles and bench.json go")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    os.environ |= {"SPECC_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads)}
    model, genai = args.directory / "model", args.directory / "genai"
    if not model.exists():
        make_model(model)
    if not genai.exists():
        builder = ["onnxruntime_genai.models.builder", "-m", str(model), "-o", str(genai), "-p", "fp32", "-e", "cpu"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([sys.executable, "-m", *builder], check=True, **quiet)
        settings = json.loads((genai / "genai_config.json").read_text())
        settings["model"]["decoder"]["session_options"]["intra_op_num_threads"] = args.threads
        (genai / "genai_config.json").write_text(json.dumps(settings))
    compiled = compile_bundle(model, args.directory / "default.specc")
    widths = ["--recipe=prompt-lookup", "--recipe=token-recycling", "--set=prompt-lookup.prompt_lookup_num_tokens=7"]
    widths.append("--set=token-recycling.num_speculative_tokens=15")
    compile_bundle(model, args.directory / "widths.specc", *widths)

    context = get_context("spawn")
    workers = {}
    for name, target, what in (
        ("specc", specc_worker, args.directory / "widths.specc"),
        ("genai", genai_worker, genai),
        ("memory", specc_worker, args.directory / "default.specc"),
    ):
        pipe, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs, str(what)), daemon=True)
        process.start()
        workers[name] = pipe

    def ask(worker: str, order: str) -> Any:
        workers[worker].send(order)
        return workers[worker].recv()

    rounds = []
    for _ in range(args.rounds):
        row = {"genai decode": ask("genai", "decode")}
        rounds.append(row | {name: ask("specc", engine) for name, engine in ENGINES.items()})
    memory = ask("memory", "memory")
    report = {
        "threads": args.threads, "rounds": rounds,
        "milliseconds": {k: round(median(r[k] for r in rounds), 2) for k in rounds[0]},
        "ratio_to_genai_decode": {k: round(median(r[k] / r["genai decode"] for r in rounds), 3) for k in ENGINES},
        "compile_seconds": compiled["seconds"],
        "compile_peak_to_weights": round(compiled["peak_rss_bytes"] / compiled["weights_bytes"], 2),
        "session_pss_to_weights": round(memory / compiled["weights_bytes"], 2),
    }  # fmt: skip
    (args.directory / "bench.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({k: v for k, v in report.items() if k != "rounds"}, indent=1))


if __name__ == "__main__":
    main()
