"""Bundles of earlier schema versions load and replay for ever; README.md in this folder says why they never change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from specc.exactness.replay import prove
from specc.runtime.bundle import open_bundle

HERE = Path(__file__).parent
# schema version -> SHA-256 of the manifest's bytes. A line is added with a version, and is never changed.
MANIFESTS = {1: "a2d23e991990a0ee856d5df420f2f3a08eeb564e9cd4593b140d1cf50d8aa32b"}
BLOCKS = {
    "verify-chain-12": "Tree", "verify-early-exit": "Tree", "verify-lookahead": "Tree",
    "verify-dynamic-tree": "Parents", "draft-early-exit": "Frontier", "assistant-draft-dynamic-tree": "Frontier",
}  # fmt: skip


def test_every_frozen_bundle_is_pinned() -> None:
    assert {f.name for f in HERE.iterdir() if f.is_dir() and (f / "manifest.json").exists()} == {
        f"schema-{version}" for version in MANIFESTS
    }


@pytest.mark.parametrize("version", MANIFESTS)
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
        proof = prove(HERE / f"schema-{version}")
        assert {r.recipe for r in proof.replayed} == {r.name for r in proof.bundle.manifest.recipes}
        assert [r for r in proof.replayed if r.verdict != "identical"] == []
        assert len(proof.replayed) == len(proof.cases) * len(proof.bundle.manifest.recipes)


def test_schema_1_has_every_kind_of_topology_and_two_caches() -> None:
    manifest = open_bundle(HERE / "schema-1").manifest
    kinds = {e.name: type(e.block.topology).__name__ for e in manifest.engines}
    assert kinds.items() >= BLOCKS.items()
    assert set(manifest.caches) == {"target", "assistant"} and len(manifest.recipes) == 8
    assert len({e.file for e in manifest.engines if e.name.startswith("verify-chain-")}) == 1


def test_schema_1_commits_rows_that_are_not_the_first_ones() -> None:
    """Drafts of several tokens are accepted, so a wrong commit changes the golden outputs."""
    lengths = {r.recipe: r.mean_acceptance_length for r in prove(HERE / "schema-1").replayed if r.case == 3}
    assert lengths["early-exit"] > 1.5 and lengths["dynamic-tree"] > 1.2
