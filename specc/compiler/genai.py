"""Write a bundle's model in the form that onnxruntime-genai loads, with one of its drafts as genai's draft model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx_ir as ir

from specc.backends.genai_graph import AttentionHeads, adapt
from specc.compiler.runtime_export import check_answer, check_standard, copy_text_files
from specc.compiler.separate_process import run_module
from specc.exactness import genai_replay, golden
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.bundle_writer import link, written_whole
from specc.runtime.engines import kernels
from specc.runtime.errors import BackendError
from specc.runtime.manifest import EngineSpec, Manifest

Stage = Callable[[str, int, int], None]
STAGES = ("rewrite the engines", "replay the golden outputs")
PACKAGE = "onnxruntime_genai"
CONFIG = "genai_config.json"
TARGET, NO_DRAFT = "decode", "none"
DRAFT_TOKENS = 4  # that the replay drafts at a time
SEARCH: Mapping[str, Any] = {
    "min_length": 0,
    "do_sample": False,
    "num_beams": 1,
    "num_return_sequences": 1,
    "past_present_share_buffer": True,
    "temperature": 1.0,
    "top_k": 1,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "diversity_penalty": 0.0,
    "no_repeat_ngram_size": 0,
    "early_stopping": True,
}


@dataclass(frozen=True, kw_only=True)
class GenaiExport:
    """A directory for onnxruntime-genai.

    Attributes:
        draft: the engine that became genai's draft model; empty if there is none.
        cases: golden cases that were replayed plainly, and with the draft; 0 if onnxruntime-genai is not installed.
    """

    draft: str
    cases: int


def export_genai(
    source: Path,
    output: Path,
    overwrite: bool = False,
    stage: Stage = lambda title, done, total: None,
    draft: str = "",
) -> GenaiExport:
    """Write the model, one draft, the tokenizer and `genai_config.json`, and replay the golden outputs there.

    Args:
        source: a bundle. It stays as it is.
        output: the directory to write. Weights are linked where the file system has links.
        overwrite: replace a directory that this function wrote.
        stage: called as each stage begins, with its title, the stages done and the stages in all.
        draft: the recipe whose draft engine is to be genai's, or `none`. Empty takes the draft of the fastest recipe
            that has one which fits.

    Raises:
        BackendError: an engine cannot be rewritten, the draft does not fit, or a golden output changed.
        BundleError: the bundle cannot be read, or the directory cannot be written.
    """
    bundle = open_bundle(source)
    cases = golden.checked_cases(bundle)
    target = bundle.engine(TARGET, "onnx")
    drafting = _draft(bundle.manifest, draft)
    with written_whole(output, overwrite, CONFIG) as directory:
        stage(STAGES[0], 0, len(STAGES))
        engines = {"decoder": target} | ({"draft": drafting} if drafting else {})
        for name in {engine.weights or bundle.manifest.weights for engine in engines.values()}:
            link(bundle.file(name), directory / name)
        copy_text_files(bundle, directory)
        parts = {role: _write_engine(bundle, engine, role, directory) for role, engine in engines.items()}
        (directory / CONFIG).write_text(json.dumps(_config(bundle.manifest, parts), indent=1) + "\n")
        stage(STAGES[1], 1, len(STAGES))
        replayed = find_spec(PACKAGE) is not None
        if replayed:
            _replay(directory, bundle, cases, (0, DRAFT_TOKENS) if drafting else (0,))
        stage(STAGES[1], len(STAGES), len(STAGES))
    return GenaiExport(draft=drafting.name if drafting else "", cases=len(cases) if replayed else 0)


def _draft(manifest: Manifest, recipe: str) -> EngineSpec | None:
    """Choose the draft engine: of a recipe, or of the fastest one that has a draft which fits.

    Raises:
        BackendError: the recipe is not in the bundle, or has no such draft.
    """
    if recipe == NO_DRAFT:
        return None
    by_recipe: dict[str, EngineSpec] = {}
    for each in manifest.recipes:
        drafts = (e for e in manifest.engines if e.name in each.engines.values() and _fits(e))
        if engine := next(drafts, None):
            by_recipe[each.name] = engine
    if recipe and recipe not in by_recipe:
        raise BackendError(
            f"the recipe {recipe!r} has no draft that onnxruntime-genai can run, which is a model over tokens that "
            f"drafts a chain; choose {', '.join([*by_recipe, NO_DRAFT])}"
        )
    if recipe:
        return by_recipe[recipe]
    speeds = {str(row["recipe"]): float(row["tokens_per_second"]) for row in manifest.measured}
    return by_recipe[max(by_recipe, key=lambda name: speeds.get(name, 0.0))] if by_recipe else None


def _fits(engine: EngineSpec) -> bool:
    """Tell whether an engine runs a chain of tokens of one sequence and returns logits, as genai's draft model does."""
    block = engine.block
    single = block.is_chain and block.lanes == 1 and not block.inputs and not block.last_row
    return engine.backend == "onnx" and single and "logits" in block.outputs and not kernels.needed(engine)


def _write_engine(bundle: Bundle, engine: EngineSpec, role: str, directory: Path) -> dict[str, Any]:
    """Rewrite an engine, and return its part of the configuration.

    Raises:
        BackendError: genai has no operators or no attention like the engine's.
    """
    check_standard(bundle, engine)
    model = ir.load(bundle.file(engine.file))
    try:
        heads = adapt(model, engine.layers)
        size = _size(bundle.manifest, engine)
    except BackendError as e:
        raise BackendError(f"the engine {engine.name} cannot run in onnxruntime-genai: {e}") from e
    file = f"{role}.onnx"
    ir.save(model, directory / file)
    return _part(file, engine, heads, size)


def _size(manifest: Manifest, engine: EngineSpec) -> int:
    """Return the size of a head's keys, which must be one for all layers."""
    layers = manifest.caches[engine.block.cache].layers
    sizes = {layers[name] for name in engine.layers}
    if len(sizes) != 1:
        raise BackendError("the rows of its layers have several sizes, and onnxruntime-genai has one for all layers")
    return sizes.pop()[1]


def _part(file: str, engine: EngineSpec, heads: AttentionHeads, size: int) -> dict[str, Any]:
    options: dict[str, Any] = {"log_id": "specc", "provider_options": []}
    if engine.threads:
        options["intra_op_num_threads"] = engine.threads
    return {
        "filename": file,
        "session_options": options,
        "head_size": size,
        "hidden_size": heads.queries * size,
        "num_attention_heads": heads.queries,
        "num_key_value_heads": heads.keys,
        "num_hidden_layers": len(engine.layers),
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
    }


def _config(manifest: Manifest, parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `genai_config.json` says. `llama` is genai's name for any decoder with keys and values."""
    model = manifest.model
    ends = list(model.eos_token_ids) or [0]
    sampling = {name: value for name, value in model.generation_config.items() if name in SEARCH}
    if sampling.get("do_sample"):
        sampling.setdefault("top_k", 0)  # genai's word for all tokens
    return {
        "model": {
            "type": "llama",
            "context_length": model.context,
            "vocab_size": model.vocab_size,
            "bos_token_id": ends[0],
            "eos_token_id": ends,
            "pad_token_id": ends[0],
            **parts,
        },
        "search": {**SEARCH, "max_length": model.context, **sampling},
    }


def _replay(directory: Path, bundle: Bundle, cases: Sequence[golden.Case], lengths: Sequence[int]) -> None:
    """Decode the golden prompts in onnxruntime-genai with drafts of each length, and compare.

    Raises:
        BackendError: a token differs and is no near-tie, or genai cannot load the directory.
    """
    answers: list[list[int]] = []
    arguments = str(directory), str(bundle.file(golden.FILE)), *map(str, lengths)
    purpose = "run the exported model in onnxruntime-genai"
    run_module(genai_replay, *arguments, purpose=purpose, advance=lambda line: answers.append(json.loads(line)))
    runs = [(length, number, case) for length in lengths for number, case in enumerate(cases)]
    for answer, (length, number, case) in zip(answers, runs, strict=True):
        runtime = f"onnxruntime-genai, with drafts of {length} tokens,"
        check_answer(runtime, number, answer, case, bundle.manifest.near_tie_tolerance)
