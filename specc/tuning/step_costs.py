"""Measure what a step of each engine costs on this machine, at several lengths of context."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median, quantiles

from specc.runtime.bundle import Bundle
from specc.runtime.call import Call
from specc.runtime.device import CPU
from specc.runtime.engine import Engine
from specc.runtime.engines import choose
from specc.runtime.environment import threads
from specc.runtime.errors import PromptError
from specc.runtime.sequence import Cache
from specc.runtime.session import Session, open_session
from specc.runtime.tree import Tree
from specc.tuning.policy import STEP_COSTS, StepCostPolicy


@dataclass(frozen=True)
class StepCost:
    """A measured cost: one step of one engine, with all its slots filled.

    Attributes:
        engine: the name of the engine.
        slots: how many slots the step fills.
        context: rows of keys and values before the slots.
        milliseconds: the time of a step. Each round has a median; this is the median of those.
        spread: the interquartile range of the rounds' medians, as a share of `milliseconds`; None for one round.
    """

    engine: str
    slots: int
    context: int
    milliseconds: float
    spread: float | None


def step_costs(session: Session, engines: Iterable[str], contexts: Iterable[int], repeats: int) -> list[StepCost]:
    """Time every engine at every context.

    The engines take turns, and one round before the first warms them up. Timing overwrites rows of the session's
    cache, so the session forgets its conversation.

    Args:
        session: the session whose engines are timed.
        engines: names of engines. A name that comes twice is timed once.
        contexts: rows of context before the slots of a step.
        repeats: how many rounds are measured.

    Returns:
        One cost for each engine and context, in the order of the arguments.

    Raises:
        PromptError: a context does not fit in the cache.
        BackendError: an engine does not load on this machine.
    """
    session.cache.sync([])
    session.shared.drafters.clear()
    contexts = tuple(contexts)
    steps = {
        (name, context): partial(_milliseconds, session.engines[name], _filled_cache(session, name, context))
        for name in dict.fromkeys(engines)
        for context in contexts
    }
    for step in steps.values():
        step()
    rounds = [{key: step() for key, step in steps.items()} for _ in range(repeats)]
    return [
        StepCost(name, session.engines[name].slots, context, *median_and_spread([r[name, context] for r in rounds]))
        for name, context in steps
    ]


def faster_on_one_thread(
    bundle: Bundle, engines: Sequence[str], context: int, policy: StepCostPolicy = STEP_COSTS
) -> list[str]:
    """Find the engines that one thread runs faster than all threads do.

    To wake the other threads costs more than they save if a step is short. Only ONNX Runtime takes a number of
    threads for each engine, so bundles that run by another backend have none.

    Args:
        bundle: the bundle whose engines are timed.
        engines: names of engines.
        context: rows of context before the slots of a step.
        policy: how much faster one thread must be, and how often both are timed.

    Returns:
        Names out of `engines`, in their order.
    """
    if not engines or threads() == 1 or choose(bundle, CPU) != "onnx":
        return []
    one_thread = tuple(replace(engine, threads=1) for engine in bundle.manifest.engines)
    with_one_thread = replace(bundle, manifest=replace(bundle.manifest, engines=one_thread))
    sessions = open_session(bundle), open_session(with_one_thread)
    ratios: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(policy.one_thread_rounds):
        on_all, on_one = (step_costs(session, engines, [context], 1) for session in sessions)
        for all_threads, single in zip(on_all, on_one, strict=True):
            ratios[single.engine].append(single.milliseconds / all_threads.milliseconds)
    return [name for name, values in ratios.items() if median(values) <= policy.one_thread_ratio]


def median_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Compute the median, and the interquartile range as a share of it, which is None for a single value."""
    middle = median(values)
    if len(values) < 2:
        return middle, None
    if not middle:
        return middle, 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return middle, (high - low) / middle


def _filled_cache(session: Session, name: str, context: int) -> Cache:
    """Return a cache in which an engine sees `context` rows. The time of a step does not depend on their values.

    Raises:
        PromptError: the rows and the engine's slots do not fit in the store.
    """
    store, slots = session.engines[name].store, session.engines[name].slots
    most = store.capacity - slots
    if not 1 <= context <= most:
        raise PromptError(
            f"a context of {context} and the {slots} slots of {name} do not fit in a cache of {store.capacity} rows; "
            f"give 1..{most}, or compile with a larger --max-seq-len"
        )
    return Cache(store, [0] * context)


def _milliseconds(engine: Engine, cache: Cache, steps: int = STEP_COSTS.steps) -> float:
    """Time steps that fill every slot and commit nothing.

    Returns:
        The median of `steps` steps, in milliseconds. One more step before them warms up.
    """
    tree = engine.block.tree or Tree.chain(engine.slots)
    tokens = [0] * tree.slots
    seconds = []
    for _ in range(1 + steps):
        start = time.perf_counter()
        Call(engine, cache, 0, tokens, tree).run()
        seconds.append(time.perf_counter() - start)
    return median(seconds[1:]) * 1000
