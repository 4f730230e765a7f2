"""What the manifest says of a compile."""

from __future__ import annotations

import re
from typing import Any

import onnxruntime
import pytest
import torch

from specc import __version__
from specc.compiler.assemble import assemble
from specc.compiler.plans import RecipePlan
from specc.recipes import DECODE, METHODS, Facts
from specc.runtime.block import Block
from specc.runtime.manifest import COMPILED_AT, CacheSpec, EngineSpec, ModelSpec, Tensor

pytestmark = pytest.mark.torch

SPEC = ModelSpec(
    source="here", revision="local", architecture="Llama", vocab_size=9, layers=2, context=16, eos_token_ids=(1,)
)


def engine(name: str, cache: str, *layers: int, rows: int = 144) -> EngineSpec:
    """An engine that reads the rows of these layers: 2 heads, of the layer's index + 8."""
    tensors = [Tensor("input_ids", "int64", (1, 1))]
    for layer in layers:
        for part in ("key", "value"):
            tensors.append(Tensor(f"past_key_values.{layer}.{part}", "float32", (1, 2, rows, 8 + layer)))
    return EngineSpec(
        name=name,
        backend="onnx",
        file=f"{name}.onnx",
        block=Block(DECODE.topology, cache=cache, model=cache),
        layers=(),
        inputs=tuple(tensors),
        outputs=(),
        passes=(),
        weights=f"weights-{name}.safetensors",
    )


def manifest(*engines: EngineSpec, **changes: Any) -> Any:
    method = METHODS["jacobi"]
    blocks = method.plan(method.settle({}), Facts(2, 9))
    plan = RecipePlan(method=method, values=method.settle({}), blocks=blocks)
    names = {blocks.verify[0]: "verify-chain-6"}
    return assemble(SPEC, [plan], names, engines, extra=changes)


def test_a_cache_has_the_rows_that_its_engines_read_between_them() -> None:
    caches = manifest(
        engine("draft", "target", 0), engine("decode", "target", 0, 1), engine("small", "assistant", 3, rows=130)
    ).caches
    assert caches == {
        "target": CacheSpec(144, {"0": (2, 8), "1": (2, 9)}),
        "assistant": CacheSpec(130, {"3": (2, 11)}),
    }


def test_a_recipe_names_the_engines_of_its_blocks() -> None:
    (recipe,) = manifest(engine("decode", "target", 0)).recipes
    assert (recipe.name, recipe.drafter, recipe.verify) == ("jacobi", "jacobi", ("verify-chain-6",))
    assert (recipe.acceptance, recipe.lossless, recipe.engines) == ("match", True, {})
    assert recipe.parameters == {"num_speculative_tokens": 5, "vocab_size": 9}


def test_a_bundle_decodes_plainly_until_it_is_measured_and_the_first_file_is_its_weights() -> None:
    matches = manifest(engine("decode", "target", 0), engine("draft", "target", 0), note=1)
    assert (matches.default_recipe, matches.weights, matches.extra["note"]) == (
        "plain",
        "weights-decode.safetensors",
        1,
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", matches.extra[COMPILED_AT])
    assert matches.model == SPEC and [e.name for e in matches.engines] == ["decode", "draft"]


def test_versions_are_those_of_the_packages_that_are_here() -> None:
    versions = manifest(engine("decode", "target", 0)).versions
    assert versions.keys() == {"python", "specc", "torch", "transformers", "onnx", "onnxscript", "onnxruntime"}
    assert versions["onnxruntime"] == onnxruntime.__version__
    assert versions["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert versions["specc"] == __version__
