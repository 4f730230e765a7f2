"""What a step costs by each backend of a bundle, in turns.

specc compile examples/pycode-10m -o build/both.specc --backend onnx --backend inductor --recipe prompt-lookup
python examples/bench_backends.py build/both.specc
"""

from __future__ import annotations

import statistics
import sys
import time

import specc
from specc.runtime.bundle import open_bundle
from specc.runtime.tree import Tree

ROUNDS, STEPS, PROMPT = 7, 20, "def f(x):\n"


def main(bundle: str) -> None:
    manifest = open_bundle(bundle).manifest
    chains = {e.name: e.block.topology for e in manifest.engines if isinstance(e.block.topology, Tree)}
    sessions = {b: specc.load(bundle, backend=b) for b in dict.fromkeys(e.backend for e in manifest.engines)}
    for session in sessions.values():
        session.generate(PROMPT, 8, recipe="plain")
    for name, tree in chains.items():
        found: dict[str, list[float]] = {backend: [] for backend in sessions}
        for _ in range(ROUNDS):
            for backend, session in sessions.items():
                found[backend].append(statistics.median(step(session, name, tree) for _ in range(STEPS)))
        told = (f"{b} {statistics.median(t):.2f} ms ({min(t):.2f} to {max(t):.2f})" for b, t in found.items())
        print(f"{name}, {tree.slots} slots: {', '.join(told)}")


def step(session: specc.runtime.session.Session, name: str, tree: Tree) -> float:
    engine, start = session.engines[name], time.perf_counter()
    engine.run(session.cache, [5] * tree.slots, tree)
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1])
