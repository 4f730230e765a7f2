"""A bundle is written whole or not at all, and opened only if it is what its manifest says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from specc.runtime import bundle as bundles
from specc.runtime.block import Block
from specc.runtime.bundle import open_bundle, write_manifest, written_whole
from specc.runtime.errors import BundleError, RecipeError
from specc.runtime.manifest import CacheSpec, EngineSpec, Manifest, ModelSpec
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree

MANIFEST = Manifest(
    schema=1,
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


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle, alone in its directory."""
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "here/demo.specc")
    return tmp_path / "here/demo.specc"


def alter(path: Path, **fields: object) -> None:
    """Change the manifest, and its digest with it."""
    data = json.loads((path / "manifest.json").read_text()) | fields
    data.pop("manifest_sha256")
    digest = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps({**data, "manifest_sha256": digest}))


def files(*more: str) -> dict[str, object]:
    """Return the manifest's files, and more of them."""
    names = ("weights.safetensors", "decode.onnx", *more)
    return {name: {"bytes": 7 if name == "weights.safetensors" else 6, "sha256": ""} for name in names}


def test_a_bundle_opens_with_sizes_and_hashes_of_all_its_files(path: Path) -> None:
    bundle = open_bundle(str(path))
    assert list(bundle.manifest.files) == ["decode.onnx", "sub/notes.txt", "weights.safetensors"]
    assert bundle.manifest.files["decode.onnx"].bytes == 6
    assert replace(bundle.manifest, files={}) == MANIFEST
    assert bundle.engine("decode") == MANIFEST.engines[0]
    assert bundle.recipe() == bundle.recipe("plain") == MANIFEST.recipes[0]
    bundle.check()
    bundle.check_once()


def test_writing_the_manifest_again_keeps_the_files(path: Path) -> None:
    manifest = open_bundle(path).manifest
    assert write_manifest(path, replace(manifest, default_recipe="lookahead")).files == manifest.files
    assert open_bundle(path).recipe().name == "lookahead"


def put_a_directory_in_place_of(file: Path) -> None:
    file.unlink()
    file.mkdir()


def put_a_link_in_place_of(file: Path) -> None:
    file.unlink()
    file.symlink_to("/etc/passwd")


def directory_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("all of it")


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "gone": (lambda p: p.rename(p.parent / "other"), "no bundle at"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "has no manifest.json, so it is not a bundle"),
    "not JSON": (lambda p: (p / "manifest.json").write_text("{"), "cannot be read"),
    "not UTF-8": (lambda p: (p / "manifest.json").write_bytes(b"\xff\xff"), "cannot be read"),
    "not an object": (lambda p: (p / "manifest.json").write_text("[]"), "was altered"),
    "altered by hand": (
        lambda p: (p / "manifest.json").write_text((p / "manifest.json").read_text().replace("a/model", "b/model")),
        "was altered",
    ),
    "newer": (lambda p: alter(p, schema=99), "has schema version 99, newer than 1; upgrade specc"),
    "a field too many": (lambda p: alter(p, colour="red"), "unknown field 'colour'"),
    "a name of nothing": (lambda p: alter(p, default_recipe="medusa"), "there is no 'medusa'"),
    "an engine elsewhere": (lambda p: alter(p, weights="../../etc/passwd"), "there is no '../../etc/passwd'"),
    "a file missing": (lambda p: (p / "decode.onnx").unlink(), "decode.onnx is missing"),
    "a directory for a file": (
        lambda p: put_a_directory_in_place_of(p / "decode.onnx"),
        "decode.onnx is missing",
    ),
    "a file cut short": (
        lambda p: (p / "weights.safetensors").write_bytes(b"weigh"),
        "weights.safetensors has 5 bytes instead of 7",
    ),
    "a link out of it": (
        lambda p: put_a_link_in_place_of(p / "decode.onnx"),
        "'decode.onnx' lies outside the bundle",
    ),
    "a file above it": (lambda p: alter(p, files=files("../notes.txt")), "'../notes.txt' lies outside the bundle"),
    "a file by its root": (lambda p: alter(p, files=files("/etc/passwd")), "'/etc/passwd' lies outside the bundle"),
}


@pytest.mark.parametrize(("damage", "named"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_bundle_does_not_open_and_says_why_in_one_line(
    path: Path, damage: Callable[[Path], Any], named: str
) -> None:
    damage(path)
    with pytest.raises(BundleError) as e:
        open_bundle(path)
    assert named in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("check", ["check", "check_once"])
def test_a_file_of_the_right_size_and_the_wrong_content_is_found(path: Path, check: str) -> None:
    bundle = open_bundle(path)
    bundle.check_once()
    (path / "weights.safetensors").write_bytes(b"Weights")
    os.utime(path / "weights.safetensors", ns=(0, 0))
    with pytest.raises(BundleError, match=r"weights\.safetensors was altered"):
        getattr(bundle, check)()
    bundle.check("decode.onnx")


@pytest.mark.parametrize(("cache", "reads"), [("kept", [3, 0, 0]), ("damaged", [3, 3, 0]), ("off", [3, 3, 3])])
def test_what_this_machine_has_checked_is_not_read_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str, reads: list[int]
) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off" if cache == "off" else str(tmp_path / cache))
    sha256, read = bundles.sha256, list[Path]()

    def reading(file: Path) -> str:
        read.append(file)
        return sha256(file)

    monkeypatch.setattr(bundles, "sha256", reading)
    for step, expected in enumerate(reads):
        read.clear()
        open_bundle(path).check_once()
        assert len(read) == expected
        if cache == "damaged" and step == 0:
            next(tmp_path.glob("damaged/*/*/*.json")).write_text("{")


def test_the_message_for_an_unknown_recipe_suggests_the_nearest(path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'lookahead'"):
        open_bundle(path).recipe("look-ahead")
    with pytest.raises(RecipeError, match=r"only plain, lookahead; .*--recipe"):
        open_bundle(path).recipe("medusa")


def test_an_engine_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(BundleError, match="has no engine 'draft', only decode; compile the bundle again"):
        open_bundle(path).engine("draft")


def beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir())


def weights(path: Path) -> bytes:
    return (open_bundle(path).path / "weights.safetensors").read_bytes()


def test_a_new_bundle_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/demo.specc"
    with written_whole(path) as partial:
        fill(partial)
        assert not path.exists()
    assert weights(path) == b"weights" and beside(path) == ["demo.specc"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o777 & ~bundles._umask()


def test_overwriting_replaces_the_old_bundle(path: Path) -> None:
    with written_whole(path, overwrite=True) as partial:
        fill(partial, b"other")
        assert weights(path) == b"weights"
    assert weights(path) == b"other" and beside(path) == ["demo.specc"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), BundleError("no")])
def test_a_compile_that_fails_leaves_nothing_and_keeps_the_old_bundle(path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), written_whole(path, overwrite=True) as partial:
        (partial / "weights.safetensors").write_bytes(b"half")
        raise error
    assert weights(path) == b"weights" and beside(path) == ["demo.specc"]
    with pytest.raises(type(error)), written_whole(path.parent / "new.specc") as partial:
        raise error
    assert beside(path) == ["demo.specc"]


def test_a_rename_that_fails_brings_the_old_bundle_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if target == path and not self.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"), written_whole(path, overwrite=True) as partial:
        fill(partial, b"other")
    assert weights(path) == b"weights" and beside(path) == ["demo.specc"]


def test_half_a_manifest_that_a_killed_process_left_is_no_file_of_the_bundle(path: Path) -> None:
    (path / "manifest.json.partial").write_text("{")
    assert "manifest.json.partial" not in write_manifest(path, open_bundle(path).manifest).files
    assert open_bundle(path).path == path and not (path / "manifest.json.partial").exists()


def remnant(path: Path, name: str) -> Path:
    """Make what a killed process left of a bundle that was complete."""
    fill(path.with_name(name), b"left")
    return path.with_name(name)


def test_what_a_killed_process_left_is_removed_by_the_next_try(path: Path) -> None:
    remnant(path, ".demo.specc.abcd_123.partial")
    remnant(path, ".demo.specc.abcd_124.partial.old")
    with pytest.raises(BundleError, match="exists"), written_whole(path):
        pytest.fail("was begun")
    assert weights(path) == b"weights" and beside(path) == ["demo.specc"]


@pytest.mark.parametrize("complete", [True, False])
def test_a_bundle_that_a_killed_process_was_about_to_replace_is_put_back(path: Path, complete: bool) -> None:
    old = path.rename(path.with_name(".demo.specc.abcd_123.partial.old"))
    if complete:
        remnant(path, old.name.removesuffix(".old"))
    with pytest.raises(BundleError, match="exists"), written_whole(path):
        pytest.fail("was begun")
    assert weights(path) == b"weights" and beside(path) == ["demo.specc"]


def test_what_a_living_process_writes_is_left_alone(path: Path) -> None:
    """And what has another name."""
    others = [".demo.specc.x.abcd_123.partial", ".demo.specc.notes", ".other.specc.abcd_123.partial"]
    for name in others:
        remnant(path, name)
    with written_whole(path, overwrite=True) as first:
        fill(first, b"first")
        path.rename(old := first.with_name(f"{first.name}.old"))
        with written_whole(path) as second:
            fill(second, b"second")
            assert first.exists() and old.exists() and not path.exists()
        assert weights(path) == b"second"
        assert first.exists() and old.exists()
        shutil.rmtree(old)
    assert weights(path) == b"first" and beside(path) == sorted([*others, "demo.specc"])


THERE: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "a bundle": (fill, False),
    "a directory": (directory_with_a_file, True),
    "an empty directory": (Path.mkdir, True),
    "a file": (lambda p: p.write_text("dear diary"), True),
}


@pytest.mark.parametrize(("make", "overwrite"), THERE.values(), ids=THERE)
def test_nothing_is_replaced_but_a_bundle_by_consent(
    tmp_path: Path, make: Callable[[Path], Any], overwrite: bool
) -> None:
    make(tmp_path / "there")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BundleError, match="exists"), written_whole(tmp_path / "there", overwrite):
        pytest.fail("was begun")
    assert sorted(tmp_path.rglob("*")) == before
