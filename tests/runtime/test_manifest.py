"""What the manifest's classes compute, and the names that they must define."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import small_bundle

from specc.runtime.errors import BundleError, PromptError
from specc.runtime.manifest import SCHEMA, SIZES, CacheSpec, FileSpec, Manifest, check_names
from specc.runtime.recipe import Recipe

MODEL = replace(small_bundle.MANIFEST.model, context=8)
ENGINE = small_bundle.MANIFEST.engines[0]
MANIFEST = Manifest(
    schema=SCHEMA,
    model=MODEL,
    engines=(ENGINE,),
    caches={"target": CacheSpec(192, {})},
    recipes=(Recipe(name="plain", drafter="plain", verify=("decode",)),),
    default_recipe="plain",
    versions={},
    files={"decode.onnx": FileSpec(1, ""), "weights.safetensors": FileSpec(1, "")},
)


@pytest.mark.parametrize(("dtype", "bytes_each"), SIZES.items())
def test_a_cache_has_keys_and_values_of_every_layer(dtype: str, bytes_each: int) -> None:
    spec = CacheSpec(10, {"0": (2, 4), "7": (1, 8)}, dtype)
    assert spec.bytes == 2 * 10 * (2 * 4 + 1 * 8) * bytes_each


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt is empty"),
        ([1] * 8, "has 8 tokens and the cache 8 rows; shorten it, or compile with a larger --max-seq-len"),
        ([1, 24], "token 24 is not in the vocabulary of 24"),
    ],
)
def test_a_prompt_that_cannot_be_run_is_refused(prompt: list[int], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        MODEL.check(prompt)
    MODEL.check([23] * 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"default_recipe": "medusa"}, "default_recipe: there is no 'medusa'"),
        ({"weights": "w.bin"}, "weights: there is no 'w.bin'"),
        ({"engines": (replace(ENGINE, file="other.onnx"),)}, "engine decode, file: there is no 'other.onnx'"),
        ({"engines": (replace(ENGINE, weights="w4.bin"),)}, "engine decode, file: there is no 'w4.bin'"),
        ({"engines": (replace(ENGINE, commit="c.onnx"),)}, "engine decode, file: there is no 'c.onnx'"),
        ({"caches": {}}, "engine decode, cache: there is no 'target'"),
        ({"engines": ()}, "recipe plain, engine: there is no 'decode'"),
        (
            {"recipes": (Recipe(name="plain", drafter="plain", verify=(), engines={"draft": "d"}),)},
            "recipe plain, engine: there is no 'd'",
        ),
    ],
)
def test_a_name_that_nothing_defines_is_named(changes: dict[str, Any], message: str) -> None:
    check_names(MANIFEST)
    with pytest.raises(BundleError, match=re.escape(f"manifest: {message}; compile the bundle again")):
        check_names(replace(MANIFEST, **changes))
