"""Bundles of earlier schema versions load and replay for ever; README.md in this folder says why they never change."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path

import pytest
from thorough import sample

from specc.exactness.replay import Proof, prove
from specc.runtime.bundle import open_bundle

HERE = Path(__file__).parent
# schema version -> SHA-256 of the manifest's bytes. A line is added with a version, and is never changed.
MANIFESTS = {
    1: "a2d23e991990a0ee856d5df420f2f3a08eeb564e9cd4593b140d1cf50d8aa32b",
    2: "13fc564f89c1bcd042d6d9652d8198387c8c09f95925a305bc69298717ad37e4",
    3: "fb3e7071c23cd25c09a783b9af8ca3967158bca7e40d9393f5ee2610112a2c90",
}
HEADS = {3: ("eagle3", "eagle3-tree", "medusa")}  # The recipes of trained heads.
BLOCKS = {
    "verify-chain-12": "Tree", "verify-early-exit": "Tree", "verify-lookahead": "Tree",
    "verify-dynamic-tree": "Parents", "draft-early-exit": "Frontier", "assistant-draft-dynamic-tree": "Frontier",
}  # fmt: skip


@cache
def proof_of(version: int) -> Proof:
    """Replay the golden outputs of a frozen bundle."""
    return prove(HERE / f"schema-{version}")


def test_every_frozen_bundle_is_pinned() -> None:
    assert {f.name for f in HERE.iterdir() if f.is_dir() and (f / "manifest.json").exists()} == {
        f"schema-{version}" for version in MANIFESTS
    }


@pytest.mark.parametrize("version", sample(sorted(MANIFESTS, reverse=True), 1))
class TestFrozenBundle:
    def test_its_manifest_was_never_regenerated(self, version: int) -> None:
        data = (HERE / f"schema-{version}" / "manifest.json").read_bytes()
        assert hashlib.sha256(data).hexdigest() == MANIFESTS[version], "restore the file: see README.md"
        assert json.loads(data)["schema"] == version

    def test_it_opens_and_the_digests_of_its_manifest_and_files_hold(self, version: int) -> None:
        bundle = open_bundle(HERE / f"schema-{version}")
        bundle.check()
        assert set(bundle.manifest.files) == {f.name for f in bundle.path.iterdir()} - {"manifest.json"}

    def test_it_replays_its_golden_outputs_by_every_recipe(self, version: int) -> None:
        proof = proof_of(version)
        assert {r.recipe for r in proof.replayed} == {r.name for r in proof.bundle.manifest.recipes}
        assert [r for r in proof.replayed if r.verdict != "identical"] == []
        assert len(proof.replayed) == len(proof.cases) * len(proof.bundle.manifest.recipes)


@pytest.mark.parametrize("version", sample(sorted(MANIFESTS, reverse=True), 1))
def test_it_has_every_kind_of_topology_and_two_caches(version: int) -> None:
    manifest = open_bundle(HERE / f"schema-{version}").manifest
    kinds = {e.name: type(e.block.topology).__name__ for e in manifest.engines}
    assert kinds.items() >= BLOCKS.items()
    heads = HEADS.get(version, ())
    assert set(manifest.caches) == {"target", "assistant", *heads[:1]} and len(manifest.recipes) == 8 + len(heads)
    assert len({e.file for e in manifest.engines if e.name.startswith("verify-chain-")}) == 1


@pytest.mark.parametrize("version", sample(sorted(MANIFESTS, reverse=True), 1))
def test_it_commits_rows_that_are_not_the_first_ones(version: int) -> None:
    """Drafts of several tokens are accepted, so a wrong commit changes the golden outputs."""
    lengths = {r.recipe: r.mean_acceptance_length for r in proof_of(version).replayed if r.case == 3}
    assert lengths["early-exit"] > 1.5 and lengths["dynamic-tree"] > 1.2


@pytest.mark.parametrize("version", [2, 3])
def test_a_schema_has_all_fields_and_the_names_of_its_types(version: int) -> None:
    data = json.loads((HERE / f"schema-{version}" / "manifest.json").read_text(encoding="utf-8"))
    fields = {2: 8, 3: 9}[version]
    assert {len(engine) for engine in data["engines"]} == {13} and {len(recipe) for recipe in data["recipes"]} == {8}
    assert all(len(engine["block"]) == fields and len(engine["block"]["layers"]) == 3 for engine in data["engines"])
    tensors = [t for engine in data["engines"] for t in (*engine["inputs"], *engine["outputs"])]
    assert {t["dtype"] for t in tensors} == {"float32", "int64", "bool"}
    assert {cache["dtype"] for cache in data["caches"].values()} == {"float32"}


@pytest.mark.parametrize("version", sorted(HEADS))
def test_drafts_of_trained_heads_are_accepted_and_all_engines_that_commit_rows_return_their_states(
    version: int,
) -> None:
    lengths = {r.recipe: r.mean_acceptance_length for r in proof_of(version).replayed if r.case == 3}
    assert all(lengths[name] > 3 for name in HEADS[version])
    manifest = open_bundle(HERE / f"schema-{version}").manifest
    committing = {"prefill", "decode", *(name for recipe in manifest.recipes for name in recipe.verify)}
    for engine in manifest.engines:
        assert ({"state:eagle3", "state:medusa"} <= set(engine.block.outputs)) == (
            engine.name in committing or engine.name.startswith("verify") or engine.block.lanes > 1
        )


@pytest.mark.parametrize("version", [2, 3])
def test_a_schema_has_engines_for_two_lanes(version: int) -> None:
    manifest = open_bundle(HERE / f"schema-{version}").manifest
    assert {e.name: e.block.lanes for e in manifest.engines if e.block.lanes > 1} == {
        "decode-lanes": 2,
        "verify-lanes": 2,
    }
