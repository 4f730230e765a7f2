"""What a step costs by each backend of a bundle, or by each of several bundles and providers, in turns.

specc compile examples/pycode-10m -o build/both.specc --backend onnx --backend inductor --recipe prompt-lookup
python benchmarks/bench_backends.py build/both.specc

specc compile examples/pycode-10m -o build/portable.specc --lowering portable --recipe prompt-lookup
python benchmarks/bench_backends.py build/both.specc build/portable.specc@{cpu,openvino,openvino:bf16}

With a GPU also build/portable.specc@{cuda,tensorrt,nv-tensorrt-rtx}, and bundles of backends that need one.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

import specc
from specc.runtime.bundle import open_bundle
from specc.runtime.device import PROVIDERS
from specc.runtime.engines import DEVICES
from specc.runtime.session import Session
from specc.runtime.tree import Tree

ROUNDS, STEPS, PROMPT = 7, 20, "def f(x):\n"


def main(*named: str) -> None:
    """Of the engines that all have, with a chain of slots."""
    sessions = {title: session for name in named for title, session in loaded(name).items()}
    chains: dict[str, Tree] = {}
    for session in sessions.values():
        session.generate(PROMPT, 8, recipe="plain")
        held = {e.name: e.block.topology for e in session.engines.specs()}
        chains = {n: t for n, t in (chains or held).items() if n in held and isinstance(t, Tree) and t.is_chain}
    for name, tree in chains.items():
        found: dict[str, list[float]] = {title: [] for title in sessions}
        for _ in range(ROUNDS):
            for title, session in sessions.items():
                found[title].append(statistics.median(step(session, name, tree) for _ in range(STEPS)))
        told = (f"{b} {statistics.median(t):.2f} ms ({min(t):.2f} to {max(t):.2f})" for b, t in found.items())
        print(f"{name}, {tree.slots} slots: {', '.join(told)}")


def loaded(named: str) -> dict[str, Session]:
    """A session for each backend of BUNDLE, or the one of BUNDLE@PROVIDER or BUNDLE@openvino:PRECISION."""
    bundle, _, place = named.partition("@")
    if not place:
        backends = dict.fromkeys(e.backend for e in open_bundle(bundle).manifest.engines)
        return {f"{bundle} {b}": specc.load(bundle, DEVICES[b][0], backend=b) for b in backends}
    provider, _, precision = place.partition(":")
    os.environ["SPECC_OPENVINO_PRECISION"] = precision or "f32"  # read when a session's engines are loaded
    session = specc.load(bundle, PROVIDERS[provider].device, provider)
    session.engines.load(*(e.name for e in session.engines.specs()))
    return {named: session}


def step(session: Session, name: str, tree: Tree) -> float:
    engine, start = session.engines[name], time.perf_counter()
    engine.run(session.cache, [5] * tree.slots, tree)
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
