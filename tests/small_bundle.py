"""A bundle of three small files and an engine that cannot run, for tests of what opens and writes bundles."""

from __future__ import annotations

from pathlib import Path

from specc.runtime.block import Block
from specc.runtime.bundle_writer import write_manifest
from specc.runtime.manifest import SCHEMA, CacheSpec, EngineSpec, Manifest, ModelSpec
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree

MANIFEST = Manifest(
    schema=SCHEMA,
    model=ModelSpec(
        source="a/model",
        revision="main",
        architecture="AnyForCausalLM",
        vocab_size=24,
        layers=4,
        context=64,
        eos_token_ids=(0,),
    ),
    engines=(
        EngineSpec(
            name="decode",
            backend="onnx",
            file="decode.onnx",
            block=Block(Tree.chain(1)),
            layers=(),
            inputs=(),
            outputs=(),
            passes=(),
        ),
    ),
    caches={"target": CacheSpec(192, {})},
    recipes=tuple(Recipe(name=n, drafter=n, verify=("decode",)) for n in ("plain", "lookahead")),
    default_recipe="plain",
    versions={},
    files={},
)


def fill(path: Path, weights: bytes = b"weights") -> Manifest:
    (path / "sub").mkdir(parents=True)
    (path / "decode.onnx").write_bytes(b"engine")
    (path / "weights.safetensors").write_bytes(weights)
    (path / "sub/notes.txt").write_bytes(b"notes")
    return write_manifest(path, MANIFEST)
