"""Measure a step of each backend of a bundle, or of each of several bundles and providers, in turns.

specc compile examples/pycode-10m -o build/both.specc --backend onnx --backend inductor --recipe prompt-lookup
python benchmarks/bench_backends.py build/both.specc

specc compile examples/pycode-10m -o build/portable.specc --lowering portable --recipe prompt-lookup
python benchmarks/bench_backends.py build/both.specc build/portable.specc@{cpu,openvino,openvino:bf16}

With a GPU, add build/portable.specc@{cuda,tensorrt,nv-tensorrt-rtx}, and bundles of backends that need a GPU.
"""

from __future__ import annotations

import os
import statistics
import sys
import time

import specc
from specc.runtime.bundle import open_bundle
from specc.runtime.call import Call
from specc.runtime.device import PROVIDERS
from specc.runtime.engines import DEVICES
from specc.runtime.session import Session
from specc.runtime.tree import Tree

ROUNDS, STEPS, PROMPT = 7, 20, "def f(x):\n"


def main(*names: str) -> None:
    """Time the chains that all sessions have, and print a line for each.

    Args:
        names: what to load, each in one of the forms of `load`.
    """
    sessions = {title: session for name in names for title, session in load(name).items()}
    for engine, tree in common_chains(list(sessions.values())).items():
        times: dict[str, list[float]] = {title: [] for title in sessions}
        for _ in range(ROUNDS):
            for title, session in sessions.items():
                times[title].append(statistics.median(step(session, engine, tree) for _ in range(STEPS)))
        figures = [
            f"{title} {statistics.median(t):.2f} ms ({min(t):.2f} to {max(t):.2f})" for title, t in times.items()
        ]
        print(f"{engine}, {tree.slots} slots: {', '.join(figures)}")


def common_chains(sessions: list[Session]) -> dict[str, Tree]:
    """Warm every session up, and find the engines with a chain of slots that all of them have."""
    common: dict[str, Tree] | None = None
    for session in sessions:
        session.generate(PROMPT, 8, recipe="plain", temperature=0)
        chains = {}
        for engine in session.engines.specs():
            topology = engine.block.topology
            if isinstance(topology, Tree) and topology.is_chain and (common is None or engine.name in common):
                chains[engine.name] = topology
        common = chains
    return common or {}


def load(name: str) -> dict[str, Session]:
    """Load sessions by name.

    Args:
        name: BUNDLE for a session of each backend, BUNDLE@PROVIDER for one session, or BUNDLE@openvino:PRECISION.
    """
    bundle, _, place = name.partition("@")
    if not place:
        backends = dict.fromkeys(engine.backend for engine in open_bundle(bundle).manifest.engines)
        return {
            f"{bundle} {backend}": specc.load(bundle, DEVICES[backend][0], backend=backend).conversation
            for backend in backends
        }
    provider, _, precision = place.partition(":")
    os.environ["SPECC_OPENVINO_PRECISION"] = precision or "f32"  # A session reads it when it loads its engines.
    session = specc.load(bundle, PROVIDERS[provider].device, provider).conversation
    session.engines.load(*(engine.name for engine in session.engines.specs()))
    return {name: session}


def step(session: Session, name: str, tree: Tree) -> float:
    """Return the milliseconds of one step with all slots filled."""
    engine, start = session.engines[name], time.perf_counter()
    Call(engine, session.cache, 0, [5] * tree.slots, tree).run()
    return 1000 * (time.perf_counter() - start)


if __name__ == "__main__":
    main(*sys.argv[1:])
