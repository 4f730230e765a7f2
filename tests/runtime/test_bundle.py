"""A bundle is opened only if it is what its manifest says."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from signing import signed
from small_bundle import MANIFEST, fill

from specc.runtime import manifest_file
from specc.runtime.bundle import open_bundle
from specc.runtime.checked_files import check_once
from specc.runtime.errors import BundleError, RecipeError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle, alone in its directory."""
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "here/demo.specc")
    return tmp_path / "here/demo.specc"


def alter(path: Path, **fields: object) -> None:
    """Change the manifest, and its digest with it."""
    data = json.loads((path / "manifest.json").read_text()) | fields
    (path / "manifest.json").write_bytes(signed(data))


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


def put_a_directory_in_place_of(file: Path) -> None:
    file.unlink()
    file.mkdir()


def put_a_link_in_place_of(file: Path, target: Path) -> None:
    file.unlink()
    file.symlink_to(target)


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
    "newer": (lambda p: alter(p, schema=99), "has schema version 99, newer than 3; upgrade specc"),
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
    "a link to another file": (
        lambda p: put_a_link_in_place_of(p / "decode.onnx", Path("/etc/passwd")),
        "decode.onnx has ",
    ),
    "a link to itself": (lambda p: put_a_link_in_place_of(p / "decode.onnx", p / "decode.onnx"), "is missing"),
    "a link to a device": (lambda p: put_a_link_in_place_of(p / "decode.onnx", Path("/dev/zero")), "is missing"),
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


@pytest.mark.parametrize("holds", ["config.json", "weights.gguf"])
def test_a_models_directory_is_not_called_a_bundle_to_compile_again(holds: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / holds).write_bytes(b"GGUF")
    with pytest.raises(BundleError) as e:
        open_bundle(tmp_path / "model")
    model = tmp_path / "model"
    assert str(e.value) == f"{model} is a model, not a bundle; compile it first: specc compile {model} -o {model}.specc"


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a directory"])
def test_a_manifest_that_is_not_a_file_is_refused_and_not_waited_for(kind: str, tmp_path: Path) -> None:
    make: dict[str, Callable[[Path], object]] = {
        "a pipe": os.mkfifo,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a directory": Path.mkdir,
    }
    make[kind](tmp_path / "manifest.json")
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read \(it is not a regular file\)"):
        open_bundle(tmp_path)


def test_a_manifest_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "m.specc")
    monkeypatch.setattr(manifest_file, "MOST_BYTES", 100)
    with pytest.raises(BundleError, match=r"cannot be read \(it has more than 0 MiB\)"):
        open_bundle(tmp_path / "m.specc")


def test_a_gguf_file_is_never_proposed_as_the_place_of_a_bundle(tmp_path: Path) -> None:
    """Such a compile would replace the user's weights."""
    file = tmp_path / "tiny-q4.0.gguf"
    remedy = f"compile the model first: specc compile {file} -o {tmp_path / 'tiny-q4.0'}.specc"
    with pytest.raises(BundleError) as e:
        open_bundle(file)
    assert str(e.value) == f"{file} is not there; {remedy}"
    file.write_bytes(b"GGUF")
    with pytest.raises(BundleError) as e:
        open_bundle(file)
    assert str(e.value) == f"{file} is a model, not a bundle; {remedy}"


def test_a_file_of_the_right_size_and_the_wrong_content_is_found(path: Path) -> None:
    bundle = open_bundle(path)
    (path / "weights.safetensors").write_bytes(b"Weights")
    with pytest.raises(BundleError, match=r"weights\.safetensors was altered"):
        bundle.check()
    bundle.check("decode.onnx")


def test_a_snapshot_of_the_hub_whose_files_are_links_is_a_bundle(path: Path) -> None:
    blobs = path.parents[1] / "blobs"
    blobs.mkdir()
    for file in [f for f in path.rglob("*") if f.is_file()]:
        target = file.rename(blobs / f"blob-{file.name}")
        file.symlink_to(os.path.relpath(target, file.parent))
    bundle = open_bundle(path)
    bundle.check()
    check_once(bundle)
    assert bundle.file("weights.safetensors").read_bytes() == b"weights"


def test_a_link_to_a_file_of_the_right_size_and_another_content_is_refused(path: Path) -> None:
    secret = path.parent / "secret"
    secret.write_bytes(b"secret!")
    put_a_link_in_place_of(path / "weights.safetensors", secret)
    with pytest.raises(BundleError, match=r"weights\.safetensors was altered"):
        check_once(open_bundle(path))


@pytest.mark.parametrize("name", ["notes.txt", "sub/../decode.onnx", "/etc/passwd", "../x", "esc\x1b", ""])
def test_a_file_that_the_manifest_does_not_list_has_no_path(path: Path, name: str) -> None:
    (path / "notes.txt").write_text("not listed")
    with pytest.raises(BundleError, match="the manifest does not list") as e:
        open_bundle(path).file(name)
    assert str(e.value).isprintable()


def test_the_message_for_an_unknown_recipe_suggests_the_nearest(path: Path) -> None:
    with pytest.raises(RecipeError, match="did you mean 'lookahead'"):
        open_bundle(path).recipe("look-ahead")
    with pytest.raises(RecipeError, match=r"only plain, lookahead; .*--recipe"):
        open_bundle(path).recipe("medusa")


def test_an_engine_that_is_not_there_is_named(path: Path) -> None:
    with pytest.raises(BundleError, match="has no engine 'draft', only decode; compile the bundle again"):
        open_bundle(path).engine("draft")
