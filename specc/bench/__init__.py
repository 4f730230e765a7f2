"""Measure recipes of a bundle, and other systems on the same model, in turns on the same prompts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from specc import __version__, machine
from specc.bench import peers
from specc.bench.peer_jobs import PeerOptions, start_peer
from specc.bench.peers import Peer, PeerOutcome
from specc.bench.policy import BENCH
from specc.bench.schedule import Results, Schedule
from specc.bench.summary import Comparison, Row, compare, mode_name, rows
from specc.bench.synthetic_acceptance import synthetic, without_doubt
from specc.bench.systems import BASELINE, SpeccSystem, System
from specc.bench.tasks import Tasks, read_tasks
from specc.bench.variants import check_parameters, with_variants
from specc.exactness import golden
from specc.machine import Machine
from specc.runtime.block import GuessTree
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.device import CPU, Device
from specc.runtime.manifest import EngineSpec
from specc.runtime.tree import Tree
from specc.runtime.width_invariance import exactness, one_width
from specc.tuning.plan import TunePlan
from specc.tuning.step_costs import StepCost, step_costs


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `specc bench`.

    Attributes:
        bundle: the bundle's directory.
        recipes: recipes beside plain decoding; `all` is every recipe. Without any, the bundle's default is run.
        vary: parameters of recipes with several values each, `RECIPE.PARAMETER=VALUE,VALUE`. Each value is run.
        prompts: a prompts file. None takes the bundle's golden prompts.
        chat: treat each prompt as a user's message, for the model's chat template.
        limit: how many prompts of each category are run at most.
        max_new_tokens: how many tokens each answer has.
        rounds: how many rounds are measured.
        rates: probabilities of a synthetic acceptance by depth; empty for the recipes' own rules.
        peers: other systems, and where their models are.
        device: where the engines run.
        allow_native_code: run engines that are native code.
        guard: whether the guard may stop drafts that do not pay.
        exact: whether every step of a recipe runs at one width. Plain decoding runs at the default recipe's.
        stage: called with the title of each stage, how many runs are done, and how many there are.
    """

    bundle: Path
    recipes: Sequence[str] = ()
    vary: Sequence[str] = ()
    prompts: Path | None = None
    chat: bool = False
    limit: int | None = None
    max_new_tokens: int = 64
    rounds: int = 5
    rates: Sequence[float] = ()
    peers: PeerOptions = field(default_factory=PeerOptions)
    device: Device = CPU
    allow_native_code: bool = False
    guard: bool = True
    exact: bool = False
    stage: Callable[[str, int, int], None] = lambda title, done, total: None


@dataclass(frozen=True, kw_only=True)
class ModelSummary:
    """A summary of the measured bundle and its model.

    Attributes:
        engine_kinds: what each engine does, by its name: `verify, chain` or `draft, tree`. Only engines of one kind
            are comparable.
    """

    bundle: str
    source: str
    architecture: str
    layers: int
    vocab_size: int
    context: int
    dtype: str
    default_recipe: str
    verify_engines: Sequence[str]
    engine_kinds: Mapping[str, str]
    weights_bytes: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a benchmark.

    Attributes:
        prompts: the prompts file.
        count: how many prompts were run.
        cut: how many of them lost their beginning, to leave room for an answer.
        chat: whether they were messages for the chat template.
        max_new_tokens: how many tokens each answer had.
        rounds: how many rounds were measured.
        synthetic_acceptance: probabilities by depth; None for the recipes' own rules.
    """

    prompts: str
    count: int
    cut: int
    chat: bool
    max_new_tokens: int
    rounds: int
    synthetic_acceptance: Sequence[float] | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of a benchmark.

    Attributes:
        date: when it began, in UTC.
        specc: the version of specc.
        machine: the machine that it ran on.
        model: the bundle and its model.
        rows: the figures of each mode of each system, by category.
        step_costs: the cost of a step of each engine that was used.
        plan: the plan that `specc tune` wrote into the bundle; None if it was never tuned.
        settings: the settings of the benchmark.
        memory: the memory of each system's process, in bytes.
        peers: what became of each peer.
        against: how specc compares with each peer that ran to the end.
        exactness: what each recipe keeps of plain decoding: `yes`, `near` with the share of changed tokens, or `no`.
    """

    date: str
    specc: str
    machine: Machine
    model: ModelSummary
    rows: Sequence[Row]
    step_costs: Sequence[StepCost]
    plan: TunePlan | None
    settings: Settings
    memory: Mapping[str, int | None]
    peers: Sequence[PeerOutcome]
    against: Sequence[Comparison]
    exactness: Mapping[str, str]

    @property
    def categories(self) -> list[str]:
        """The categories of the rows, in their order."""
        return list(dict.fromkeys(row.category for row in self.rows))

    @property
    def overall(self) -> list[Row]:
        """The rows on all prompts together."""
        last = self.categories[-1]  # This is the only category, or the one of all prompts.
        return [row for row in self.rows if row.category == last]

    @property
    def warnings(self) -> list[str]:
        """A line that names the modes whose rounds differ too much to trust their speeds, or nothing."""
        spreads = [(mode_name(row), row.spread) for row in self.overall if row.spread is not None]
        unsure = [(name, spread) for name, spread in spreads if spread > BENCH.largest_spread]
        if not unsure:
            return []
        names = ", ".join(f"{name} {spread:.0%}" for name, spread in unsure)
        return [
            f"the rounds of a mode differ by more than {BENCH.largest_spread:.0%} ({names}), so its speed is unsure; "
            "run again on an idle machine, or with more --rounds"
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data, as `specc bench --json` prints it."""
        data = asdict(self)
        return {
            **{key: data[key] for key in ("date", "specc", "machine", "model", "rows", "step_costs")},
            "plan": self.plan.to_json() if self.plan else None,
            "predicted_speedup": self.plan.predicted_speedup if self.plan else None,
            "measured_speedup": self.plan.measured_speedup if self.plan else None,
            **{key: data[key] for key in ("settings", "memory", "peers", "against", "exactness")},
            "warnings": self.warnings,
        }


def bench(options: Options) -> Report:
    """Run recipes and peers in turns, and time the engines that the recipes use.

    Raises:
        SpeccError: the bundle, the prompts or the options cannot be used. A peer that fails raises nothing; the
            report says what is wrong with it.
    """
    date = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    bundle = open_bundle(options.bundle, options.allow_native_code)
    for name in options.peers.names:
        peers.source(name)
    plan = TunePlan.of(bundle.manifest)
    if options.rates:
        bundle = replace(bundle, manifest=without_doubt(bundle.manifest))
    recipes = _recipes(bundle, options.recipes)
    manifest, variants = with_variants(bundle.manifest, options.vary)
    bundle = replace(bundle, manifest=manifest)
    for name in variants:  # A value out of range is refused before an engine is loaded.
        check_parameters(bundle, bundle.recipe(name))
    own = SpeccSystem(
        bundle,
        [*recipes, *variants],
        synthetic(options.rates) if options.rates else None,
        options.device,
        guard=options.guard and not options.rates,
        exact=options.exact,
    )
    if options.exact:
        for name in own.modes:  # A recipe that cannot be exact is refused before anything is measured.
            one_width(bundle.manifest, bundle.recipe(name), own.session.engines.backend)
    tasks = read_tasks(
        own.session, options.prompts, chat=options.chat, limit=options.limit, new_tokens=options.max_new_tokens
    )
    with ExitStack() as stack:
        outcomes, running = _start_peers(options, bundle, tasks, stack)
        systems: list[System] = [own, *running]
        results = Schedule(
            systems, tasks.all, rounds=options.rounds, new_tokens=options.max_new_tokens, stage=options.stage
        ).run()
        memory = _memory(systems, results)
    options.stage("measure the engines", 0, 1)
    return Report(
        date=date,
        specc=__version__,
        machine=machine.describe(machine.gpu_name() if options.device.device == "cuda" else ""),
        model=_summarise(bundle),
        rows=rows(results.runs, tasks.all),
        step_costs=_costs(own, options.rounds),
        plan=plan,
        settings=Settings(
            prompts=str(options.prompts or golden.FILE),
            count=len(tasks.all),
            cut=tasks.cut,
            chat=options.chat,
            max_new_tokens=options.max_new_tokens,
            rounds=options.rounds,
            synthetic_acceptance=list(options.rates) or None,
        ),
        memory=memory,
        peers=[replace(outcome, problem=results.problems.get(outcome.name, outcome.problem)) for outcome in outcomes],
        against=compare(results.runs, tasks.all),
        exactness={} if options.rates else _exactness(bundle, own.modes, own.session.engines.backend, options.exact),
    )


def _exactness(bundle: Bundle, names: Sequence[str], backend: str, exact: bool) -> dict[str, str]:
    """Say of each recipe what it keeps of plain decoding. An exact recipe keeps its tokens."""
    recipes = [bundle.recipe(name) for name in names]
    return {r.name: "yes" if exact and r.lossless else exactness(bundle.manifest, r, backend) for r in recipes}


def _recipes(bundle: Bundle, names: Sequence[str]) -> list[str]:
    """Return the names of the recipes to run, plain decoding first.

    Raises:
        RecipeError: the bundle has no recipe of a name.
    """
    recipes = [BASELINE[1]]
    for name in names or [bundle.recipe().name]:
        if name == "all":
            recipes += [recipe.name for recipe in bundle.manifest.recipes]
        else:
            recipes.append(bundle.recipe(name).name)
    return list(dict.fromkeys(recipes))


def _start_peers(
    options: Options, bundle: Bundle, tasks: Tasks, stack: ExitStack
) -> tuple[list[PeerOutcome], list[Peer]]:
    """Start every peer. Return what became of each, and those that run."""
    outcomes, running = [], []
    for name in options.peers.names:
        options.stage(f"start {name}", 0, 1)
        outcome, peer = start_peer(name, options.peers, bundle, tasks.all[0].ids, stack)
        outcomes.append(outcome)
        if peer:
            running.append(peer)
    return outcomes, running


def _memory(systems: Sequence[System], results: Results) -> dict[str, int | None]:
    """Ask each system that ran to the end for the memory of its process."""
    finished = {name for name, _ in results.runs}
    return {system.name: system.memory() for system in systems if system.name in finished}


def _costs(own: SpeccSystem, repeats: int) -> list[StepCost]:
    """Time the engines of the recipes that ran, decode first, at contexts that fit in their caches."""
    session, manifest = own.session, own.session.bundle.manifest
    names = ["decode"]
    for recipe in manifest.recipes:
        if recipe.name in own.modes:
            names += [*recipe.verify, *recipe.engines.values()]
    names = list(dict.fromkeys(names))
    engines = [session.bundle.engine(name) for name in names]
    room = min(manifest.caches[engine.block.store].capacity - engine.block.slots for engine in engines)
    contexts = sorted({min(context, room) for context in BENCH.contexts})
    return step_costs(session, names, contexts, repeats)


def _summarise(bundle: Bundle) -> ModelSummary:
    """Summarise the bundle and its model."""
    manifest = bundle.manifest
    return ModelSummary(
        bundle=str(bundle.path),
        source=manifest.model.source,
        architecture=manifest.model.architecture,
        layers=manifest.model.layers,
        vocab_size=manifest.model.vocab_size,
        context=manifest.model.context,
        dtype=bundle.engine("decode").block.weights,
        default_recipe=manifest.default_recipe,
        engine_kinds={engine.name: _kind(bundle, engine) for engine in manifest.engines},
        verify_engines=sorted({name for recipe in manifest.recipes for name in recipe.verify}),
        weights_bytes=manifest.files[manifest.weights].bytes,
    )


def _kind(bundle: Bundle, engine: EngineSpec) -> str:
    """Say what an engine does, `verify` or `draft`, and in which topology."""
    verifies = any(engine.name in recipe.verify for recipe in bundle.manifest.recipes)
    shape = engine.block.topology
    topology = "dynamic tree"
    if isinstance(shape, GuessTree):
        topology = "tree with guesses"
    elif isinstance(shape, Tree):
        topology = "chain" if shape.is_chain else "tree"
    if engine.block.lanes > 1:
        return f"{engine.block.lanes} lanes, {topology}"
    return f"{'verify' if verifies else 'draft'}, {topology}"
