"""From a model and recipes to a bundle: the only file that sees capture, passes, backends and runtime at once."""

from __future__ import annotations

import gc
import platform
import resource
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch.fx import GraphModule
from transformers import AutoTokenizer, PreTrainedModel

from specc import passes
from specc.backends import Options as BuildOptions
from specc.backends import backend, check, typed
from specc.backends.lowering.any_width import engine_at
from specc.compiler import weights
from specc.compiler.capture import capture
from specc.compiler.fork_pool import call_each
from specc.compiler.layer_search import skip_if_better, skip_sublayers
from specc.compiler.quantize import BITS, QuantizeLinears
from specc.compiler.separate_process import apart
from specc.exactness import golden, perplexity
from specc.exactness.reference import perplexities, reference
from specc.huggingface import describe, load_model
from specc.recipes import DECODE, METHODS, Facts, LayerSearch, Method, MethodBlocks, method, prefill
from specc.recipes.defaults import WIDTHS
from specc.runtime.block import Block, Frontier
from specc.runtime.bundle import Bundle, open_bundle, write_manifest, written_whole
from specc.runtime.environment import threads
from specc.runtime.errors import CaptureError, RecipeError, first_line
from specc.runtime.manifest import SCHEMA, CacheSpec, EngineSpec, Manifest, ModelSpec, PassRecord
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree

MARGIN = 128  # rows past the context: scratch for the widest block
CALIBRATION = 96  # tokens that a search runs on
SEARCHES = {LayerSearch.SKIP_SOME: skip_sublayers, LayerSearch.SKIP_IF_FASTER: skip_if_better}
FORKS = 8  # engines built at once, at most: each takes some hundred megabytes of its own


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `specc compile` takes.

    recipes: names of the table; empty means all that need neither a second model nor training.
    parameters: by recipe, or under "" for every recipe that has one of that name.
    max_seq_len: tokens that fit, prompt and answer; by default the model's own limit, 2048 at most.
    backends: every engine is built by each. dtype: of their weights, see `specc.backends.typed`.
    text: a file to report perplexity on, the original's beside the bundle's; of a quantised target, golden prompts too.
    tune: measure and choose as `specc tune` does, with chains of more widths; compile again where other trees pay.
    draft_dtype: of the weights of engines that draft, where a backend has it; what a draft reads changes no output.
    """

    model: str
    output: str | Path
    recipes: Sequence[str] = ()
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    assistant_model: str | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    max_seq_len: int | None = None
    prompts: str | Path | None = None
    golden_tokens: int = 24
    text: str | Path | None = None
    backends: Sequence[str] = ("onnx",)
    dtype: str | None = None
    draft_dtype: str = "int4"
    build: BuildOptions = field(default_factory=BuildOptions)
    overwrite: bool = False
    dump_graphs: str | Path | None = None
    tune: bool = False
    stage: Callable[[str, int, int], None] = lambda title, done, total: None


@dataclass(frozen=True)
class Report:
    """What a compile did. `peak_rss_bytes`: of the larger of its two processes, compiling and measuring."""

    bundle: Bundle
    seconds: float
    peak_rss_bytes: int


def compile_bundle(options: Options) -> Report:
    """Compile, prove and measure. Raises SpeccError; whatever happens, no half of a bundle is left."""
    start = time.monotonic()
    check(options.backends, options.dtype)
    methods = _methods(options)
    prompts = golden.read_prompts(Path(options.prompts or Path(__file__).with_name("golden_prompts.jsonl")))
    if options.text:
        perplexity.read(Path(options.text))  # what cannot be is refused now
    trees: dict[str, Any] = {}
    with written_whole(Path(options.output), options.overwrite) as directory:
        job = _Compile(options, methods, prompts, directory)
        gc.freeze()  # the libraries, whose objects would be gone over again and again: a fifth of what capture takes
        try:
            write_manifest(directory, job.run())
        finally:
            gc.unfreeze()
        done = job.done
        del job
        gc.collect()  # the model and its graphs, which hold one another
        text = [str(options.text)] if options.text else []
        runs = [("specc.exactness.self_reference", *text)] * (options.dtype in BITS) + [
            ("specc.tuning.default_recipe",)
        ]
        for module, *more in runs + [("specc.tuning.tune",)] * options.tune:
            apart(module, str(directory), *more, advance=lambda line: options.stage(line, done, done))
        if options.tune:
            trees = open_bundle(directory).manifest.extra.get("plan", {}).get("trees", {})
    if trees and not any(options.parameters.get(name, {}).get("tree") for name in trees):
        parameters = {**options.parameters}
        for name, found in trees.items():
            parameters[name] = {**parameters.get(name, {}), "tree": found["tree"]}
        compile_bundle(replace(options, parameters=parameters, overwrite=True))
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Report(open_bundle(options.output), time.monotonic() - start, peak * 1024)


def _methods(options: Options) -> list[Method]:
    """The methods asked for, plain first. Raises RecipeError where one lacks what it needs."""
    given = {"assistant-model"} if options.assistant_model else set()
    names = list(options.recipes) or [m.name for m in METHODS.values() if given.issuperset(m.needs)]
    chosen = [method(name) for name in dict.fromkeys(("plain", *names))]
    for m in chosen:
        if missing := sorted(set(m.needs) - given):
            raise RecipeError(f"recipe {m.name} needs a draft model; name one with --{missing[0]}")
    for name in options.parameters.keys() - {""}:
        if name not in {m.name for m in chosen}:
            raise RecipeError(f"parameters for recipe {name!r}, which is not compiled; add --recipe {name}")
    for name in options.parameters.get("", {}):
        if not any(name in m.parameters for m in chosen):
            raise RecipeError(f"no compiled recipe has a parameter {name!r}; see: specc recipes")
    return chosen


class _Compile:
    """One compile, in the order in which things happen."""

    def __init__(self, options: Options, methods: list[Method], prompts: list[str], directory: Path) -> None:
        self.options, self.methods, self.prompts, self.directory = options, methods, prompts, directory
        self.graphs: dict[str, GraphModule] = {}
        self.quantized: dict[tuple[str, str], GraphModule] = {}
        self.prepared: dict[str, list[PassRecord]] = {}
        self.done, self.total = 0, 5 + len(methods)

    def stage(self, title: str) -> None:
        self.options.stage(title, self.done, self.total)
        self.done += 1

    def run(self) -> Manifest:
        options = self.options
        self.stage(f"load {options.model}")
        model = load_model(options.model, options.revision, options.trust_remote_code)
        spec = describe(model, options.model, options.max_seq_len)
        tokenizer = self._tokenizer()
        facts = Facts(spec.layers, spec.vocab_size, bool(options.assistant_model))
        _name_blocks([(m, m.plan(self._settled(m), facts)) for m in self.methods])  # what cannot be is refused now
        self.stage("decode the golden prompts in transformers")
        prompts = [(p, tokenizer.encode(p)[: spec.context // 2]) for p in self.prompts]
        cases = reference(model, prompts, min(options.golden_tokens, spec.context // 2), spec.eos_token_ids)
        golden.write_cases(cases, self.directory / golden.FILE)
        text = Path(options.text) if options.text else None
        samples = perplexity.samples(cases, text, tokenizer.encode, spec.context)
        known = perplexities(model, samples) if text or options.dtype in BITS else []  # else the bundle's is the same
        self._capture("target", model, spec)
        if options.assistant_model:
            self._capture_assistant(options.assistant_model, spec)
        plans = [(m, self._cheap(m.plan(self._searched(m, cases), facts))) for m in self.methods]
        blocks = _name_blocks(plans)
        asked = (
            (title, by, typed(block, by, options.backends, options.dtype, options.build), block in blocks)
            for block, title in _name_blocks(plans, WIDTHS.curve).items() for by in dict.fromkeys(options.backends)
        )  # fmt: skip
        wanted = [
            (title, by, block) for title, by, block, used in asked if used or options.tune or self._any_width(by, block)
        ]
        tensors: dict[str, torch.Tensor] = {}
        for model_name in self.graphs:
            kinds = {block.weights if block.weights in BITS else "fp32" for *_, block in wanted}
            tensors |= self._variants(model_name, kinds)
        files = weights.write_types(tensors, self.directory, [block.weights for _, _, block in wanted])
        engines = tuple(self._engines(wanted, spec.context + MARGIN, files))
        self.stage("measure the recipes")
        return Manifest(
            schema=SCHEMA, model=spec, engines=engines, caches=_caches(engines),
            recipes=tuple(_recipe(m, plan, blocks) for m, plan in plans), default_recipe="plain",
            versions=_versions(), files={}, weights=next(iter(files.values())),
            extra={perplexity.KEY: known} if known else {},
        )  # fmt: skip

    def _tokenizer(self) -> Any:
        """Load it and write its files into the bundle. Raises CaptureError."""
        source = self.options.model
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, revision=self.options.revision, trust_remote_code=self.options.trust_remote_code
            )
            tokenizer.save_pretrained(self.directory)
        except Exception as e:
            raise CaptureError(
                f"{source} has no tokenizer that loads; save one beside the model ({first_line(e)})"
            ) from e
        if not (self.directory / "tokenizer.json").exists():
            raise CaptureError(f"{source} has no fast tokenizer (tokenizer.json); the runtime reads no other")
        return tokenizer

    def _capture(self, name: str, model: PreTrainedModel, spec: ModelSpec) -> None:
        self.stage(f"capture {spec.source}")
        graph = capture(model)
        dump = self._dump(f"{name}-prepared")
        self.prepared[name] = passes.run(passes.preparation(spec.context + MARGIN), graph, dump)
        self.graphs[name] = graph

    def _capture_assistant(self, source: str, target: ModelSpec) -> None:
        model = load_model(source, trust_remote_code=self.options.trust_remote_code)
        spec = describe(model, source)
        if spec.vocab_size != target.vocab_size:
            raise RecipeError(
                f"{source} has a vocabulary of {spec.vocab_size} and {target.source} one of {target.vocab_size}; "
                "a draft model must share the target's tokenizer"
            )
        if spec.context < target.context:
            raise RecipeError(
                f"{source} has positions for {spec.context} tokens and the bundle for {target.context}; "
                f"give --max-seq-len {spec.context} or less"
            )
        self._capture("assistant", model, replace(spec, context=target.context))

    def _settled(self, m: Method) -> dict[str, Any]:
        """A method's parameters as the user gave them, or at their defaults."""
        anywhere = {k: v for k, v in self.options.parameters.get("", {}).items() if k in m.parameters}
        return m.settle(anywhere | dict(self.options.parameters.get(m.name, {})))

    def _cheap(self, plan: MethodBlocks) -> MethodBlocks:
        """The same, with drafts that read their weights in the type asked for."""
        kind = self.options.draft_dtype
        drafts = {
            role: replace(b, weights=kind if b.weights == "fp32" else b.weights) for role, b in plan.engines.items()
        }
        return replace(plan, engines=drafts)

    def _searched(self, m: Method, cases: list[golden.Case]) -> dict[str, Any]:
        """The same, with what a search on calibration text found for those left open."""
        settled = self._settled(m)
        if m.search:
            self.stage(f"search for {m.name}")
            text = [t for c in cases for t in (*c.prompt_ids, *c.token_ids)][:CALIBRATION]
            settled |= SEARCHES[m.search](self.graphs["target"], text, settled)
        return settled

    def _variants(self, name: str, kinds: Collection[str]) -> dict[str, torch.Tensor]:
        """The model's graph in each type of weights, and the tensors that these graphs read."""
        tensors = weights.collect(self.graphs[name], _prefix(name))  # names tied tensors alike, for all types
        found: dict[str, torch.Tensor] = tensors if "fp32" in kinds else {}
        for kind in sorted(BITS.keys() & kinds):
            graph = passes.fork(self.graphs[name])
            ran = passes.run([QuantizeLinears(BITS[kind])], graph)
            self.prepared[f"{name} {kind}"] = [*self.prepared[name], *ran]
            self.quantized[name, kind] = graph
            found |= weights.collect(graph, _prefix(name))
        return found

    def _engines(
        self, wanted: Sequence[tuple[str, str, Block]], capacity: int, files: Mapping[str, str]
    ) -> list[EngineSpec]:
        """One file each, or one for all that differ in width alone where a backend makes such."""
        alike: dict[tuple[str, Block], list[tuple[str, Block]]] = {}
        for name, by, block in wanted:
            key = replace(block, topology=Tree.chain(1)) if self._any_width(by, block) else block
            alike.setdefault((by, key), []).append((name, block))
        groups = [(by, blocks) for (by, _), blocks in alike.items()]
        self.total = self.done + len(groups) + 1

        def begin(number: int) -> None:
            by, [(name, _), *others] = groups[number]
            title = f"build {name} and {len(others)} more widths" if others else f"build {name}"
            self.stage(title if len(self.options.backends) == 1 else f"{title} by {by}")

        together = all(getattr(backend(by), "together", False) for by in self.options.backends)
        calls = [partial(self._built, *group, capacity, files) for group in groups]
        settle = partial(torch.set_num_threads, 1)  # OpenMP's threads do not come along with a fork
        made = call_each(calls, min(threads(), FORKS) if together else 1, begin, settle)
        found = {(e.name, e.backend): e for engines in made for e in engines}
        return [found[name, by] for name, by, _ in wanted]

    def _any_width(self, by: str, block: Block) -> bool:
        """Whether the backend makes one file for this block and those that differ from it in width alone."""
        widths = getattr(backend(by), "any_width", None)
        return widths is not None and widths(self._graph(block), block, self.options.build)

    def _graph(self, block: Block) -> GraphModule:
        return self.quantized.get((block.model, block.weights), self.graphs[block.model])

    def _built(
        self, by: str, blocks: Sequence[tuple[str, Block]], capacity: int, files: Mapping[str, str]
    ) -> list[EngineSpec]:
        """The engines of one file, which is called after the first."""
        name, block = blocks[0]
        graph = passes.fork(self._graph(block))
        before = self.prepared.get(f"{block.model} {block.weights}", self.prepared[block.model])
        ran = passes.run(passes.pipeline(block, capacity), graph, self._dump(name))
        builder, file = backend(by), files.get(block.weights, Manifest.weights)
        engine = self.directory / f"{name}{builder.suffix}"
        layers = tuple(passes.find.sublayers(graph))
        made = builder.build(graph, block, self.directory / file, _prefix(block.model), engine, self.options.build)
        first = EngineSpec(
            name=name,
            backend=by,
            file=engine.name,
            block=block,
            layers=layers,
            inputs=made.inputs,
            outputs=made.outputs,
            passes=(*before, *ran),
            weights=file,
            needs=made.needs,
            commit=made.commit,
        )
        return [first, *(engine_at(first, *other) for other in blocks[1:])]

    def _dump(self, name: str) -> Path | None:
        return Path(self.options.dump_graphs) / name if self.options.dump_graphs else None


def _prefix(model: str) -> str:
    return "" if model == "target" else f"{model}."


def _name_blocks(plans: list[tuple[Method, MethodBlocks]], widths: Sequence[int] = ()) -> dict[Block, str]:
    """Every block that is to be built, once, under a name; and chains of so many slots."""
    names = {prefill(): "prefill", DECODE: "decode"}

    def name(block: Block, wanted: str, m: Method) -> None:
        if block not in names:
            names[block] = f"{wanted}-{m.name}" if wanted in names.values() else wanted

    for m, plan in plans:
        for block in plan.verify:
            chain = isinstance(block.topology, Tree) and block.topology.is_chain
            name(block, f"verify-chain-{block.slots}" if chain else f"verify-{m.name}", m)
        for role, block in plan.engines.items():
            name(block, f"{role}-{m.name}" if block.model == "target" else f"{block.model}-{role}", m)
    for slots in widths:
        names.setdefault(Block(Tree.chain(slots)), f"verify-chain-{slots}")
    for block, title in names.items():
        wide = max(block.slots, block.topology.span if isinstance(block.topology, Frontier) else 0)
        if wide > MARGIN:
            raise RecipeError(f"{title} has {wide} slots; {MARGIN} is the most: choose fewer tokens a draft")
    return names


def _recipe(m: Method, plan: MethodBlocks, names: Mapping[Block, str]) -> Recipe:
    return Recipe(
        m.name, m.drafter, tuple(names[b] for b in plan.verify), m.acceptance, m.lossless,
        {role: names[b] for role, b in plan.engines.items()}, plan.arguments,
    )  # fmt: skip


def _caches(engines: Sequence[EngineSpec]) -> dict[str, CacheSpec]:
    """The rows that the engines of each cache name need between them."""
    layers: dict[str, dict[str, tuple[int, int]]] = {}
    for engine in engines:
        for tensor in engine.inputs:
            kind, _, rest = tensor.name.partition(".")
            if kind == "past_key_values" and rest.endswith(".key"):
                _, heads, capacity, size = tensor.shape
                layers.setdefault(engine.block.cache, {})[rest.removesuffix(".key")] = heads, size
    return {name: CacheSpec(capacity, found) for name, found in layers.items()}


def _versions() -> dict[str, str]:
    packages = ("specc", "torch", "transformers", "onnx", "onnxscript")
    made_by = {"python": platform.python_version(), **{p: version(p) for p in packages}}
    return made_by | {"onnxruntime": onnxruntime.__version__}  # of whichever distribution is here
