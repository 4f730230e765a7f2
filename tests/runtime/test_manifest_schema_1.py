"""Manifests of schema 1 are read in the words of schema 2, by the digest of schema 1."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from shell import copied
from signing import signed

from specc.runtime.bundle import open_bundle
from specc.runtime.bundle_writer import replace_manifest
from specc.runtime.errors import BundleError
from specc.runtime.manifest_schema_1 import digest, translate

FROZEN = Path(__file__).parents[1] / "bundles/schema-1"
DATA: dict[str, Any] = json.loads((FROZEN / "manifest.json").read_text(encoding="utf-8"))


def test_the_digest_is_that_of_sorted_json() -> None:
    fields = {name: value for name, value in DATA.items() if name != "manifest_sha256"}
    assert digest(fields) == DATA["manifest_sha256"]


def test_types_have_the_names_of_schema_2() -> None:
    manifest = open_bundle(FROZEN).manifest
    assert manifest.schema == 1
    tensors = [t for engine in manifest.engines for t in (*engine.inputs, *engine.outputs)]
    assert {t.dtype for t in tensors} == {"float32", "int64", "bool"}
    assert {t["dtype"] for engine in DATA["engines"] for t in engine["inputs"]} == {"float", "int64", "bool"}


def test_a_cache_may_have_either_name() -> None:
    caches = {"a": {"dtype": "float"}, "b": {"dtype": "float16"}, "c": {}}
    expected = {"a": {"dtype": "float32"}, "b": {"dtype": "float16"}, "c": {}}
    assert translate({"caches": caches})["caches"] == expected


@pytest.mark.parametrize(("model", "prefix"), [("target", ""), ("assistant", "assistant."), (None, "")])
def test_inputs_that_nothing_else_fills_are_weights(model: str | None, prefix: str) -> None:
    names = ["input_ids", "past_len", "past_key_values.0.key", "mask", "depth", "norm.weight", "head.weight"]
    block = {} if model is None else {"model": model}
    engine = {"block": block, "inputs": [{"name": name, "dtype": "int64"} for name in names]}
    (translated,) = translate({"engines": [engine]})["engines"]
    assert translated["weight_inputs"] == {name: prefix + name for name in ("norm.weight", "head.weight")}


def test_engines_without_such_inputs_have_no_weights_among_them() -> None:
    assert all(not engine.weight_inputs for engine in open_bundle(FROZEN).manifest.engines)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"engines": 3, "caches": []},
        {"engines": [3, None, {"inputs": 3, "block": 4}, {"inputs": [5, {}, {"name": 7, "dtype": []}]}]},
        {"caches": {"a": 3, "b": {"dtype": 4}, "c": {"dtype": ["float"]}}},
    ],
)
def test_what_does_not_fit_is_left_to_the_codec(data: dict[str, Any]) -> None:
    before = copy.deepcopy(data)
    assert translate(data) == data == before


def test_the_words_of_schema_1_are_refused_in_schema_2(tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    (bundle / "manifest.json").write_bytes(signed({**DATA, "schema": 2}))
    with pytest.raises(BundleError, match="unknown dtype 'float'; compile the bundle again"):
        open_bundle(bundle)


def test_a_manifest_that_is_written_again_has_the_newest_schema_and_the_same_content(tmp_path: Path) -> None:
    opened = open_bundle(copied(FROZEN, tmp_path))
    replace_manifest(opened, opened.manifest)
    again = open_bundle(opened.path)
    assert (opened.manifest.schema, again.manifest.schema) == (1, 3)
    assert again.manifest.engines == opened.manifest.engines and again.manifest.caches == opened.manifest.caches
    content = (opened.path / "manifest.json").read_bytes()
    assert hashlib.sha256(content[:-68] + b"0" * 64 + content[-4:]).hexdigest().encode() == content[-68:-4]
