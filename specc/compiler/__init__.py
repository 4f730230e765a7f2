"""Model and recipes in, bundle out: a compile in the order in which it happens."""

from __future__ import annotations

import gc
import resource
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specc.backends import check
from specc.compiler.assemble import assemble
from specc.compiler.build import Site, build_engines, write_weights
from specc.compiler.corpus import write_corpus
from specc.compiler.gguf_weights import KeepBlocks, with_gguf_blocks
from specc.compiler.graphs import PreparedGraph, add_one_loop, pack_graphs, prepare, quantize_graphs
from specc.compiler.heads import TargetHead, fit_all_heads, graft, load_heads, prepare_head
from specc.compiler.in_model_heads import bridges, guess_slots
from specc.compiler.kernels import KERNELS, rounded_matrices, with_checkpoint_dtype, with_lowering
from specc.compiler.lanes_memory import check_lanes
from specc.compiler.load import check_assistant_tokenizer, encode_prompts, load_assistant, load_tokenizer
from specc.compiler.measure import measure_recipes, with_better_trees
from specc.compiler.options import Options, Report
from specc.compiler.plans import (
    MARGIN,
    check_early,
    check_plans,
    choose_methods,
    plan_recipes,
    reads_corpus,
    search_layers,
)
from specc.compiler.quantize import BITS
from specc.compiler.requests import engine_requests, name_blocks, settle_widths
from specc.compiler.stages import Extent, Stages, expected_seconds
from specc.corpus import read_corpus
from specc.exactness import golden, perplexity
from specc.exactness.reference import perplexities, reference
from specc.heads import Checkpoint, Head
from specc.huggingface import ROUNDING, context_of, describe, load_model, read_text_config, rounding
from specc.huggingface.gguf import read_once
from specc.huggingface.gguf_blocks import BlockIndex
from specc.huggingface.recursive import loops_of
from specc.recipes import Facts, Method
from specc.recipes.choice import values_of
from specc.runtime.block import MOST_LANES
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.bundle_writer import write_manifest, written_whole
from specc.runtime.errors import SpeccWarning
from specc.runtime.manifest import ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Options", "Report", "compile_bundle"]

CALIBRATION = 96  # tokens of golden text on which a search compares layers


def compile_bundle(options: Options) -> Report:
    """Compile a bundle, measure its recipes and choose its default.

    With `tune`, a bundle is compiled a second time if trees of other shapes are faster than the default ones.

    Raises:
        SpeccError: the compile failed. Whatever happens, no part of a bundle is left behind.
    """
    start = time.monotonic()
    bundle = _compile(options)
    if retuned := with_better_trees(options, bundle):
        bundle = _compile(retuned)
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Report(bundle=bundle, seconds=time.monotonic() - start, peak_rss_bytes=peak * 1024)


def _compile(options: Options) -> Bundle:
    options, gguf_parts = with_gguf_blocks(options)
    check(options.backends, options.dtype, min(options.lanes, MOST_LANES), heads=bool(options.heads))
    check_lanes(options)
    options = with_lowering(options)
    heads = load_heads(options.heads)
    methods = choose_methods(options, heads)
    config = read_text_config(options.model, options.revision, options.trust_remote_code)
    if config is not None:
        context_of(config, options.model, options.max_seq_len)
    check_early(methods, options, config)
    prompts = golden.read_prompts(Path(options.prompts or Path(__file__).with_name("golden_prompts.jsonl")))
    text = perplexity.read(Path(options.text)) if options.text else None
    extent = Extent(
        golden_tokens=len(prompts) * options.golden_tokens,
        recipes=len(methods),
        searches=any(m.searches(values_of(m, options.parameters)) for m in methods),
        quantises=options.dtype in BITS or options.draft_dtype != "fp32",
        assistant=options.assistant_model is not None,
        tunes=options.tune,
    )
    stages = Stages(options.stage, expected_seconds(extent))
    with written_whole(Path(options.output), options.overwrite) as directory:
        with _libraries_uncollected():
            is_rounded = _write_bundle(options, methods, heads, prompts, text, directory, stages, extent, gguf_parts)
        gc.collect()  # the model and its graphs, which refer to one another, are freed before recipes are measured
        measure_recipes(directory, options, stages, is_rounded)
        stages.finish()
    return open_bundle(options.output, allow_native_code=True)


def _write_bundle(
    options: Options,
    methods: list[Method],
    heads: Mapping[str, Head | Checkpoint],
    prompts: list[str],
    text: perplexity.Text | None,
    directory: Path,
    stages: Stages,
    extent: Extent,
    gguf_parts: Sequence[Path],
) -> bool:
    """Fill the directory: tokenizer, golden cases, weights, engines and manifest.

    Returns:
        Whether the target's weights are rounded, so that its tokens may differ from the original model's.
    """
    stages.begin("load", f"load {options.model}")
    with read_once():
        tokenizer = load_tokenizer(options, directory)
        for source in options.small_models.values():
            check_assistant_tokenizer(source, options, tokenizer, prompts)
        model = load_model(options.model, options.revision, options.trust_remote_code, options.adapter)
    spec = describe(model, options.model, options.max_seq_len)
    # Loaded before the target is decoded and captured, so that one that cannot draft for it is refused at once.
    small = {name: load_assistant(source, options, spec) for name, source in options.small_models.items()}
    described = {"target": (model, spec)}
    described |= {name: (each, describe(each, options.small_models[name])) for name, each in small.items()}
    target_heads = fit_all_heads(heads, described)
    facts = Facts(
        spec.layers,
        spec.vocab_size,
        assistant="assistant" in small,
        heads={head.name: head.facts for head in target_heads},
        assistant_layers=described["assistant"][1].layers if "assistant" in small else 0,
        corpus=options.corpus is not None,
        assistant_loops=loops_of(small["assistant"]) if "assistant" in small else 1,
    )
    plans = plan_recipes(methods, facts, options)  # early, so that a value out of range is refused at once
    options = with_checkpoint_dtype(options, model, [block for each in plans for block in each.blocks.all])
    check_plans(plans, options)
    extent_of_model = replace(
        extent,
        parameters=sum(p.numel() for p in model.parameters()),
        widens=bool(rounding(model)),
        quantises=options.dtype in BITS or any(block.weights in BITS for each in plans for block in each.blocks.all),
    )
    stages.weigh(expected_seconds(extent_of_model))
    if options.corpus and reads_corpus(plans):
        stages.begin("load", "index the corpus")
        encode = partial(tokenizer.encode, add_special_tokens=False, verbose=False)
        write_corpus(read_corpus(Path(options.corpus)), encode, spec.eos_token_ids, directory)
    capacity = spec.context + MARGIN

    cases = _write_golden(options, model, spec, encode_prompts(prompts, tokenizer, spec.context), directory, stages)
    extra: dict[str, Any] = {ROUNDING: rounding(model)} if rounding(model) else {}
    rounded = rounded_matrices(model, options)
    if rounded:
        warnings.warn(
            f"{options.model} has values that bf16 does not hold, in {len(rounded)} matrices such as {rounded[0]}: "
            "the bundle rounds them, so its tokens may differ from the model's; --dtype fp32 keeps them",
            SpeccWarning,
            stacklevel=2,
        )
    is_rounded = options.dtype in BITS or bool(rounded)
    if text or is_rounded:  # an unquantised bundle has the original's perplexity
        rows = perplexities(model, perplexity.samples(cases, text, tokenizer.encode, spec.context))
        extra |= {perplexity.KEY: rows} if rows else {}

    graphs = _capture(options, model, small, target_heads, capacity, stages)
    graphs = add_one_loop(graphs, [block for each in plans for block in each.blocks.all], facts.assistant_loops)
    tokens = [token for case in cases for token in (*case.prompt_ids, *case.token_ids)][:CALIBRATION]
    plans = search_layers(plans, facts, options, graphs["target", "fp32"].graph, tokens, stages)
    names = name_blocks(plans, options.lanes, facts.reading_heads)
    requests = engine_requests(names, options, facts.reading_heads)
    blocks = [request.block for request in requests]
    if any(block.weights in BITS for block in blocks):
        stages.begin("quantise", "quantise the weights")
    stored = {str(options.dtype): KeepBlocks(BlockIndex(gguf_parts))} if gguf_parts else {}
    graphs = quantize_graphs(graphs, blocks, stages.advance, stored)
    stages.begin("weights", "write the weights")
    if options.build.lowering == KERNELS:
        graphs = pack_graphs(graphs, blocks, rounds=bool(rounded))
    requests = settle_widths(requests, graphs, options)

    site = Site(directory=directory, capacity=capacity, options=options.build, dump=_dump(options))
    write_weights(requests, graphs, site)
    engines = build_engines(requests, graphs, site, stages)
    write_manifest(directory, assemble(spec, plans, names, engines, extra))
    return is_rounded


def _write_golden(
    options: Options,
    model: PreTrainedModel,
    spec: ModelSpec,
    prompts: Sequence[tuple[str, list[int]]],
    directory: Path,
    stages: Stages,
) -> list[golden.Case]:
    """Decode the golden prompts by the original model, and write the cases."""
    stages.begin("golden", "decode the golden prompts in transformers")
    count, done = min(options.golden_tokens, spec.context // 2), iter(range(1, len(prompts) + 1))
    cases = reference(model, prompts, count, spec.eos_token_ids, lambda: stages.advance(next(done), len(prompts)))
    golden.write_cases(cases, directory / golden.FILE)
    return cases


def _capture(
    options: Options,
    model: PreTrainedModel,
    small: Mapping[str, PreTrainedModel],
    heads: Sequence[TargetHead],
    capacity: int,
    stages: Stages,
) -> dict[tuple[str, str], PreparedGraph]:
    """Capture the target, its heads and the smaller models, and return their graphs in fp32."""
    stages.begin("capture", f"capture {options.model}")
    readers = [head for head in heads if not head.facts.in_model]
    grafts = {
        name: tuple(graft(head) for head in readers if head.facts.reads == name and not head.facts.reads_rows)
        for name in ("target", *small)
    }
    target = prepare(model, capacity, _dump(options, "target-prepared"))
    target = replace(target, grafts=grafts["target"], guesses=guess_slots(heads), bridges=bridges(heads))
    graphs = {("target", "fp32"): target}
    for head in (head for head in readers if head.facts.reads == "target"):
        dump = _dump(options, f"{head.name}-prepared")
        graphs[head.name, "fp32"] = prepare_head(head, target.graph, capacity, dump)
    for name, small_model in small.items():
        stages.begin("assistant", f"capture {options.small_models[name]}")
        graph = prepare(small_model, capacity, _dump(options, f"{name}-prepared"))
        graphs[name, "fp32"] = replace(graph, grafts=grafts[name])
    return graphs


def _dump(options: Options, name: str = "") -> Path | None:
    return Path(options.dump_graphs) / name if options.dump_graphs else None


@contextmanager
def _libraries_uncollected() -> Iterator[None]:
    """Keep the libraries' objects from the garbage collector, which takes a fifth of a capture's time otherwise."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
