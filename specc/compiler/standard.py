"""Rewrite a bundle whose engines need specc-kernels, so that it runs without that library."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from specc.backends.onnx import link_external_weights, split_gathered_weights
from specc.backends.onnx_needs import needs
from specc.backends.standard_onnx import has_lanes, standardise
from specc.compiler import weights
from specc.compiler.measure import choose_default_recipe
from specc.exactness import golden
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.bundle_writer import write_manifest, written_whole
from specc.runtime.engines import kernels
from specc.runtime.errors import BackendError
from specc.runtime.manifest import PLAN, EngineSpec
from specc.runtime.session import open_session

Stage = Callable[[str, int, int], None]
STAGES = ("rewrite the engines", "replay the golden outputs", "measure the recipes")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A bundle that was rewritten.

    Attributes:
        bundle: the new bundle, opened.
        operators: nodes of specc-kernels that were replaced.
        left_out: names of engines that the new bundle does not have: ONNX Runtime has no counterpart of their lanes.
    """

    bundle: Bundle
    operators: int
    left_out: tuple[str, ...]


def export_standard(
    source: Path, output: Path, overwrite: bool = False, stage: Stage = lambda title, done, total: None
) -> Exported:
    """Write a bundle with ONNX Runtime's own operators: weights widened to fp32, or in the same few bits.

    The golden outputs must hold. The recipes are measured anew, since the engines cost other times.

    Args:
        source: a bundle with operators of specc-kernels. It stays as it is.
        output: the directory of the new bundle.
        overwrite: replace a bundle that stands there.
        stage: called as each stage begins, with its title, the stages done and the stages in all.

    Raises:
        BackendError: no engine has such operators, one has no counterpart, or a golden output changed.
        BundleError: the bundle cannot be read, or the new one cannot be written.
    """
    bundle = open_bundle(source)
    if not any(kernels.needed(engine) for engine in bundle.manifest.engines):
        raise BackendError(f"{source} has no operators of {kernels.PACKAGE}, so it is standard already; copy it")
    with written_whole(output, overwrite) as directory:
        stage(STAGES[0], 0, len(STAGES))
        for name in bundle.manifest.files:
            if not name.endswith((".onnx", ".safetensors")):
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, directory / name)
        operators, engines, left_out = _rewrite(bundle, directory)
        extra = {key: value for key, value in bundle.manifest.extra.items() if key != PLAN}  # of other engines
        manifest = replace(bundle.manifest, engines=engines, files={}, extra=extra, width_invariance=None)
        write_manifest(directory, manifest)
        stage(STAGES[1], 1, len(STAGES))
        _check_golden(directory)
        stage(STAGES[2], 2, len(STAGES))
        choose_default_recipe(directory, STAGES[2])
        stage(STAGES[2], len(STAGES), len(STAGES))
    return Exported(bundle=open_bundle(output), operators=operators, left_out=left_out)


def _rewrite(bundle: Bundle, directory: Path) -> tuple[int, tuple[EngineSpec, ...], tuple[str, ...]]:
    """Write the weights and the engines.

    Returns:
        The nodes that were replaced, the engines, and the names of those that were left out.
    """
    by_file = {engine.file: engine for engine in bundle.manifest.engines}
    models = {file: ir.load(bundle.path / file) for file in by_file}
    dropped = {file for file, model in models.items() if has_lanes(model)}
    count = sum(standardise(model) for file, model in models.items() if file not in dropped)
    stored: dict[str, dict[str, torch.Tensor]] = {}
    for file, model in models.items():
        if file not in dropped:
            prefix = weights.prefix_of(by_file[file].block.model)
            stored.setdefault(_weights_file(bundle, by_file[file]), {}).update(_large(model, prefix))
    for name, tensors in stored.items():
        weights.write(tensors, directory / name)
    requirements: dict[str, dict[str, str]] = {}
    for file, model in models.items():
        if file not in dropped:
            engine = by_file[file]
            prefix = weights.prefix_of(engine.block.model)
            link_external_weights(model, directory / _weights_file(bundle, engine), prefix, directory / file)
            split_gathered_weights(model)
            requirements[file] = needs(model)
            ir.save(model, directory / file)
    remaining = tuple(
        replace(engine, block=_widened(engine), needs=requirements[engine.file])
        for engine in bundle.manifest.engines
        if engine.file in requirements
    )
    return count, remaining, tuple(e.name for e in bundle.manifest.engines if e.file in dropped)


def _weights_file(bundle: Bundle, engine: EngineSpec) -> str:
    return engine.weights or bundle.manifest.weights


def _widened(engine: EngineSpec) -> Any:
    """Return an engine's block with what its weights have become: fp32 in the place of bf16."""
    return replace(engine.block, weights="fp32") if engine.block.weights == "bf16" else engine.block


def _large(model: ir.Model, prefix: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a model that belong into the weights file, by their names there."""
    values = {name: value.const_value for name, value in model.graph.initializers.items()}
    return {
        prefix + name: torch.from_numpy(np.array(tensor.numpy()))
        for name, tensor in values.items()
        if tensor is not None and (isinstance(tensor, ir.ExternalTensor) or tensor.nbytes >= weights.INLINE)
    }


def _check_golden(directory: Path) -> None:
    """Replay the golden outputs by plain decoding.

    Raises:
        BackendError: the tokens of one are others.
    """
    bundle = open_bundle(directory)
    cases = golden.cases_of(bundle)
    results = golden.replay(open_session(bundle), cases, ["plain"], bundle.manifest.near_tie_tolerance)
    for number, result in enumerate(results):
        if result.verdict is golden.Verdict.DIVERGED:
            raise BackendError(
                f"by standard operators the golden output {number} is another one; compile the model again with "
                "--lowering fast, which makes its own"
            )
