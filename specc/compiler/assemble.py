"""What the manifest says of a compile."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from specc import __version__
from specc.compiler.plans import RecipePlan
from specc.runtime.block import Block
from specc.runtime.engines.onnx_runtime import ort
from specc.runtime.manifest import COMPILED_AT, SCHEMA, CacheSpec, EngineSpec, Manifest, ModelSpec
from specc.runtime.recipe import Recipe

PACKAGES = ("torch", "transformers", "onnx", "onnxscript")


def assemble(
    spec: ModelSpec,
    plans: Sequence[RecipePlan],
    names: Mapping[Block, str],
    engines: Sequence[EngineSpec],
    extra: Mapping[str, Any],
) -> Manifest:
    """Assemble the manifest. The bundle decodes plainly until recipes have been measured.

    Args:
        spec: the target.
        plans: the recipes.
        names: names of the blocks that recipes run.
        engines: the engines that were built; the manifest's weights are those of the first.
        extra: notes for the manifest's field of that name.
    """
    return Manifest(
        schema=SCHEMA,
        model=spec,
        engines=tuple(engines),
        caches=_caches(engines),
        recipes=tuple(_recipe(plan, names) for plan in plans),
        default_recipe="plain",
        versions=_versions(),
        files={},
        weights=engines[0].weights,
        extra={**extra, COMPILED_AT: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
    )


def _recipe(plan: RecipePlan, names: Mapping[Block, str]) -> Recipe:
    return Recipe(
        name=plan.method.name,
        drafter=plan.method.drafter,
        verify=tuple(names[block] for block in plan.blocks.verify),
        acceptance=plan.method.acceptance,
        lossless=plan.method.lossless,
        engines={role: names[block] for role, block in plan.blocks.engines.items()},
        parameters=plan.blocks.arguments,
        rule_parameters=plan.blocks.rule,
    )


def _caches(engines: Sequence[EngineSpec]) -> dict[str, CacheSpec]:
    """Return for each cache the rows that its engines read, as their inputs name and shape them."""
    layers: dict[str, dict[str, tuple[int, int]]] = {}
    capacities: dict[str, int] = {}
    for engine in engines:
        for tensor in engine.inputs:
            kind, _, rest = tensor.name.partition(".")
            if kind == "past_key_values" and rest.endswith(".key"):
                if engine.block.lanes > 1:  # each lane has rows of its own, shaped as those of one sequence
                    rest = rest.partition(".")[2]
                _, heads, capacities[engine.block.store], size = tensor.shape
                layers.setdefault(engine.block.store, {})[rest.removesuffix(".key")] = heads, size
    return {name: CacheSpec(capacity, layers[name]) for name, capacity in capacities.items()}


def _versions() -> dict[str, str]:
    """Return the versions of the packages that made the bundle, ONNX Runtime's whichever distribution it is."""
    return {
        "python": platform.python_version(),
        "specc": __version__,
        **{package: version(package) for package in PACKAGES},
        "onnxruntime": ort.__version__,
    }
