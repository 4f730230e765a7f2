"""`specc bench`: recipes of a bundle, and other systems on the same model, in turns on the same prompts."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from specc import machine, prompts
from specc.bench.peers import PEERS, Job, Peer, closing
from specc.bench.summary import Key, Row, Task, best, rows
from specc.bench.synthetic_acceptance import synthetic, undoubting
from specc.bench.systems import Run, SpeccSystem, System
from specc.exactness import golden
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.device import CPU, Device
from specc.runtime.environment import cache_directory, stamp
from specc.runtime.errors import BackendError, PromptError, RecipeError
from specc.runtime.session import Session
from specc.tuning.step_costs import StepCost, step_costs

CONTEXTS = (64, 1024)
WARM = 16  # tokens of the runs that are not measured
T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """What `specc bench` was asked for. recipes: beside plain; none is the bundle's default.

    limit: prompts of each category. rates: acceptance by decree. pythons, models: by the name of a peer.
    """

    bundle: Path
    recipes: Sequence[str] = ()
    prompts: Path | None = None
    chat: bool = False
    limit: int | None = None
    max_new_tokens: int = 64
    rounds: int = 5
    rates: Sequence[float] = ()
    against: Sequence[str] = ()
    model: str | None = None
    assistant_model: str | None = None
    pythons: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    place: Device = CPU
    guard: bool = True
    stage: Callable[[str, int, int], None] = lambda title, done, total: None


@dataclass(frozen=True)
class Report:
    """What `--json` prints. memory: bytes by system; peers: what each had to say, `problem` where it did not run."""

    machine: Mapping[str, Any]
    model: Mapping[str, Any]
    rows: Sequence[Row]
    step_costs: Sequence[StepCost]
    plan: Mapping[str, Any] | None
    predicted_speedup: float | None
    measured_speedup: float | None
    settings: Mapping[str, Any]
    memory: Mapping[str, int | None]
    peers: Sequence[Mapping[str, Any]]
    against: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def bench(options: Options) -> Report:
    """Run everything in turns. Raises SpeccError; what is wrong with a peer is told in the report instead."""
    bundle = open_bundle(options.bundle)
    for name in options.against:
        if name not in PEERS:
            raise RecipeError(f"no peer {name!r}; there are {', '.join(PEERS)}")
    accept = synthetic(options.rates) if options.rates else None
    if options.rates:
        bundle = replace(bundle, manifest=undoubting(bundle.manifest))
    own = SpeccSystem(
        bundle, _recipes(bundle, options.recipes), accept, options.place, options.guard and not options.rates
    )
    tasks, cut = _tasks(own.session, options)
    running: list[Peer] = []
    with ExitStack() as stack:
        stack.enter_context(closing(running))
        told = [_start(name, bundle, options, tasks[0].ids, running, stack) for name in options.against]
        systems: list[System] = [own, *running]
        runs = _measure(systems, tasks, options, told)
        memory = {own.name: own.memory()} | {peer.name: peer.memory() for peer in running if _lives(peer, runs)}
    options.stage("measure the engines", 0, 1)
    plan = bundle.manifest.extra.get("plan") or None
    measured = rows(runs, tasks)
    return Report(
        machine=machine.describe(), model=_model(bundle), rows=measured,
        step_costs=_costs(own, options.rounds), plan=plan,
        predicted_speedup=plan and plan.get("predicted_speedup"),
        measured_speedup=plan and plan.get("measured_speedup"),
        settings={
            "prompts": str(options.prompts or golden.FILE), "count": len(tasks), "cut": cut, "chat": options.chat,
            "max_new_tokens": options.max_new_tokens, "rounds": options.rounds,
            "synthetic_acceptance": list(options.rates) or None,
        },
        memory=memory, peers=told, against=best(runs, tasks),
    )  # fmt: skip


def _recipes(bundle: Bundle, names: Sequence[str]) -> list[str]:
    """Plain first; `all` is every recipe of the bundle. Raises RecipeError."""
    everything = [r.name for r in bundle.manifest.recipes]
    wanted = [n for name in names for n in (everything if name == "all" else [bundle.recipe(name).name])]
    return list(dict.fromkeys(("plain", *(wanted or [bundle.recipe().name]))))


def _tasks(session: Session, options: Options) -> tuple[list[Task], int]:
    """The prompts as tokens, and how many had to be cut at their beginning to leave room for an answer."""
    room = session.bundle.manifest.model.context - options.max_new_tokens
    if room < 1:
        raise PromptError(
            f"{options.max_new_tokens} new tokens leave no room for a prompt in {room + options.max_new_tokens} rows; "
            "give fewer with --max-new-tokens"
        )
    if options.prompts:
        found = [
            Task(session.text.encode([{"role": "user", "content": p.text}] if options.chat else p.text), p.category)
            for p in prompts.read(options.prompts)
        ]
    else:
        cases = golden.read_cases(session.bundle.file(golden.FILE))
        found = [Task(case.prompt_ids, "golden") for case in cases]
    seen: dict[str, int] = {}
    kept = []
    for task in found:
        seen[task.category] = seen.get(task.category, 0) + 1
        if options.limit is None or seen[task.category] <= options.limit:
            kept.append(task)
    return [Task(t.ids[-room:], t.category) for t in kept], sum(len(t.ids) > room for t in kept)


def _start(
    name: str, bundle: Bundle, options: Options, ids: Sequence[int], running: list[Peer], stack: ExitStack
) -> dict[str, Any]:
    """Start a peer and tell what became of it."""
    options.stage(f"start {name}", 0, 1)
    told: dict[str, Any] = {"name": name, "version": None, "modes": [], "failed": {}, "problem": None}
    try:
        model = options.models.get(name) or _directory(options.model or bundle.manifest.model.source)
        assistant = options.assistant_model and _directory(options.assistant_model)
        dtype = bundle.engine("decode").block.weights
        work = _work(stack, name, model, assistant, dtype, options.pythons.get(name))
        job = Job(
            model, assistant, dtype, machine.describe()["threads"], bundle.manifest.model.context, work, list(ids)
        )  # fmt: skip
        peer = Peer(name, job, options.pythons.get(name))
    except BackendError as e:
        return told | {"problem": str(e)}
    running.append(peer)
    return told | {"version": peer.version, "modes": list(peer.modes), "failed": peer.failed}


def _measure(
    systems: Sequence[System], tasks: Sequence[Task], options: Options, told: list[dict[str, Any]]
) -> dict[Key, list[list[Run]]]:
    """Rounds of runs by system and mode. A peer that breaks off is left out, and its runs with it."""
    everyone = [(system, mode) for system in systems for mode in system.modes]
    runs: dict[Key, list[list[Run]]] = {(s.name, mode): [] for s, mode in everyone}
    total = len(everyone) * (1 + options.rounds * len(tasks))
    done = iter(range(total))

    def go(title: str, system: System, mode: str, task: Task, seed: int, count: int) -> Run | None:
        options.stage(title, next(done), total)
        if (system.name, mode) not in runs:
            return None
        try:
            return system.run(mode, task.ids, count, seed)
        except BackendError as e:
            if isinstance(system, SpeccSystem):
                raise
            for key in [key for key in runs if key[0] == system.name]:
                del runs[key]
            next(t for t in told if t["name"] == system.name)["problem"] = str(e)
            return None

    for system, mode in everyone:
        go("warm up", system, mode, tasks[0], 0, min(WARM, options.max_new_tokens))
    for number in range(options.rounds):
        for system in systems:
            system.renew()
        for held in runs.values():
            held.append([])
        for i, task in enumerate(tasks):
            for system, mode in in_turn(everyone, number + i):
                run = go(f"round {number + 1} of {options.rounds}", system, mode, task, i, options.max_new_tokens)
                if run:
                    runs[system.name, mode][-1].append(run)
    return runs


def in_turn(everyone: Sequence[T], by: int) -> Iterator[T]:
    """The same order, begun elsewhere: nobody always comes after the same one's end of a prompt."""
    start = by % len(everyone)
    yield from (*everyone[start:], *everyone[:start])


def _lives(peer: Peer, runs: Iterable[Key]) -> bool:
    return any(name == peer.name for name, _ in runs)


def _costs(own: SpeccSystem, repeats: int) -> list[StepCost]:
    """The engines of the recipes that were measured, decode first, at contexts that fit."""
    session, manifest = own.session, own.session.bundle.manifest
    used = [r for r in manifest.recipes if r.name in own.modes]
    names = list(dict.fromkeys(("decode", *(n for r in used for n in (*r.verify, *r.engines.values())))))
    specs = [session.bundle.engine(name) for name in names]
    room = min(manifest.caches[s.block.cache].capacity - s.block.slots for s in specs)
    return step_costs(session, names, sorted({min(context, room) for context in CONTEXTS}), repeats)


def _model(bundle: Bundle) -> dict[str, Any]:
    model = bundle.manifest.model
    return {
        "bundle": str(bundle.path), "source": model.source, "architecture": model.architecture,
        "layers": model.layers, "vocab_size": model.vocab_size, "context": model.context,
        "dtype": bundle.engine("decode").block.weights, "default_recipe": bundle.manifest.default_recipe,
        "verify_engines": sorted({name for r in bundle.manifest.recipes for name in r.verify}),
        "weights_bytes": bundle.manifest.files[bundle.manifest.weights].bytes,
    }  # fmt: skip


def _directory(source: str) -> str:
    """Where the original model lies. Raises BackendError."""
    if Path(source).is_dir():
        return str(Path(source).resolve())
    try:
        from huggingface_hub import snapshot_download

        return str(snapshot_download(source))
    except Exception as e:  # no such package, no such repository, no network: no family in common
        raise BackendError(f"the model {source} is not here; name its directory with --model DIR") from e


def _work(stack: ExitStack, *what: Any) -> str:
    """A directory kept on this machine for what a peer makes of exactly these models, or a passing one."""
    files = sorted(f for d in what if d and Path(d).is_dir() for f in Path(d).iterdir() if f.is_file())
    key = repr((what, [(str(f), stamp(f)) for f in files]))
    try:
        return str(cache_directory("peers", hashlib.sha256(key.encode()).hexdigest()[:32]))
    except OSError:
        return stack.enter_context(tempfile.TemporaryDirectory())
