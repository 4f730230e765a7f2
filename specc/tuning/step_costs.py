"""What a step of each engine costs on this machine, at several lengths of context."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median, quantiles

from specc.runtime.bundle import Bundle
from specc.runtime.device import CPU
from specc.runtime.engine import Engine
from specc.runtime.engines import choose
from specc.runtime.environment import threads
from specc.runtime.errors import PromptError
from specc.runtime.sequence import Cache
from specc.runtime.session import Session
from specc.runtime.tree import Tree

STEPS = 4  # measured in a row, after one that is not
ALONE = 0.97  # of the time of all threads, at most, for an engine to run on one


@dataclass(frozen=True)
class StepCost:
    """One engine on all its slots, with `context` rows before them.

    milliseconds: the median over rounds of a round's median. spread: the interquartile range over rounds, as a share
    of that.
    """

    engine: str
    slots: int
    context: int
    milliseconds: float
    spread: float


def step_costs(session: Session, engines: Iterable[str], contexts: Iterable[int], repeats: int) -> list[StepCost]:
    """Time every engine at every context, each in turn, `repeats` rounds after one to warm up.

    The conversation that the session holds is forgotten: its rows are overwritten. Raises PromptError where a context
    does not fit, BackendError where an engine does not load here.
    """
    session.cache.sync([])
    session.drafters.clear()
    contexts = tuple(contexts)
    steps = {
        (name, context): partial(_milliseconds, session.engines[name], _rows(session, name, context))
        for name in dict.fromkeys(engines)
        for context in contexts
    }
    for step in steps.values():
        step()
    rounds = [{key: step() for key, step in steps.items()} for _ in range(repeats)]
    return [
        StepCost(name, session.engines[name].slots, context, *middle([r[name, context] for r in rounds]))
        for name, context in steps
    ]


def faster_alone(bundle: Bundle, names: Sequence[str], context: int, repeats: int = 15) -> list[str]:
    """Engines that one thread runs faster than all do: where a step is small, others cost more to wake than they help.

    Of ONNX Runtime's alone, which take a number of threads each.
    """
    if not names or threads() == 1 or choose(bundle, CPU) != "onnx":
        return []
    one = tuple(replace(e, threads=1) for e in bundle.manifest.engines)
    sessions = Session(bundle), Session(replace(bundle, manifest=replace(bundle.manifest, engines=one)))
    rounds = [[step_costs(session, names, [context], 1) for session in sessions] for _ in range(repeats)]
    ratios = {
        name: median(alone[i].milliseconds / together[i].milliseconds for together, alone in rounds)
        for i, name in enumerate(names)
    }
    return [name for name, ratio in ratios.items() if ratio <= ALONE]


def middle(values: list[float]) -> tuple[float, float]:
    """The median, and the interquartile range as a share of it."""
    half = median(values)
    if len(values) < 2 or not half:
        return half, 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return half, (high - low) / half


def _rows(session: Session, name: str, context: int) -> Cache:
    """`context` rows for an engine to see. What they hold costs nothing."""
    store, slots = session.engines[name].store, session.engines[name].slots
    if not 1 <= context <= store.capacity - slots:
        raise PromptError(
            f"a context of {context} and the {slots} slots of {name} do not fit in a cache of {store.capacity} rows; "
            f"give 1..{store.capacity - slots}, or compile with a larger --max-seq-len"
        )
    return Cache(store, [0] * context)


def _milliseconds(engine: Engine, cache: Cache) -> float:
    """The median of some runs one after another: every slot filled, nothing kept."""
    topology = engine.block.topology
    tree = topology if isinstance(topology, Tree) else Tree.chain(engine.slots)
    tokens, seconds = [0] * engine.slots, []
    for _ in range(1 + STEPS):
        start = time.perf_counter()
        engine.run(cache, tokens, tree)
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:]) * 1000
