"""Damaged bundles: whatever happens to a file, one line refuses the bundle. There is no traceback and no token."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell import copied, edit_manifest, refused, specc

from specc.runtime.bundle import MANIFEST, open_bundle
from specc.runtime.errors import BundleError
from specc.runtime.manifest import Manifest

pytestmark = pytest.mark.model


def test_every_file_that_is_altered_cut_or_gone(bundle: Path, tmp_path: Path) -> None:
    damaged, manifest = copied(bundle, tmp_path), open_bundle(bundle).manifest
    for file in sorted(damaged.iterdir()):
        whole, rng = file.read_bytes(), random.Random(file.name)
        offsets = {0, len(whole) // 2, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(30))}
        changes = [_flipped(whole, at, 1 << rng.randrange(8)) for at in offsets]
        changes += [whole[:length] for length in (0, 1, len(whole) // 2, len(whole) - 1)] + [whole + b"\0"]
        for change in changes:
            file.write_bytes(change)
            _refuses(damaged, file.name, manifest)
        file.unlink()
        _refuses(damaged, file.name, None)
        file.write_bytes(whole)
    open_bundle(damaged).check()


@pytest.mark.parametrize("name", [MANIFEST, "weights.safetensors", "decode.onnx", "tokenizer.json", "golden.jsonl"])
@pytest.mark.parametrize("verb", ["test", "generate"])
def test_the_command_line_says_which_file(verb: str, name: str, bundle: Path, tmp_path: Path) -> None:
    damaged = copied(bundle, tmp_path)
    file, argv = damaged / name, [verb, damaged, *(["--prompt", "a"] if verb == "generate" else [])]
    assert specc(*argv).status == 0  # The machine remembers the hashes of the files that it has read.
    whole = file.read_bytes()
    file.write_bytes(_flipped(whole, len(whole) // 2, 1))
    assert str(file) in refused(*argv)
    file.write_bytes(whole[:-2])
    assert str(file) in refused(*argv)
    file.unlink()
    assert name in refused(*argv)


def test_a_newer_schema_asks_for_a_newer_specc(bundle: Path, tmp_path: Path) -> None:
    newer = edit_manifest(copied(bundle, tmp_path), lambda m: m.update(schema=99))
    assert refused("show", newer).endswith("has schema version 99, newer than 3; upgrade specc")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(engines=3), "manifest.engines: expected list, found 3"),
        (lambda m: m.update(surprise=1), "unknown field 'surprise'"),
        (lambda m: m.pop("model"), "field 'model' is missing"),
        (lambda m: m["model"].update(context="long"), "manifest.model.context: expected int"),
        (lambda m: m.update(default_recipe="none"), "default_recipe: there is no 'none'"),
        (lambda m: m["recipes"][0].update(verify=["none"]), "there is no 'none'"),
        (lambda m: m["engines"][0].update(file="none"), "there is no 'none'"),
        (lambda m: m["engines"][0]["block"].update(cache="none"), "there is no 'none'"),
        (lambda m: m["engines"][0]["block"].update(topology={"parents": [-1, 5]}), "not a tree"),
        (lambda m: m["engines"][0]["block"].update(outputs=["smell"]), "unknown output 'smell'"),
        (lambda m: m["files"].update({"../x": {"bytes": 1, "sha256": ""}}), "lies outside the bundle"),
        (lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}), "lies outside the bundle"),
        (lambda m: [e.update(backend="abacus") for e in m["engines"]], "no backend 'abacus', only onnx"),
        (lambda m: m["recipes"][0].update(drafter="os"), "no drafter 'os'; upgrade specc, or compile the bundle again"),
        (lambda m: m["recipes"][0].update(drafter="../evil"), "no drafter '../evil'; upgrade specc, or "),
    ],
)
def test_a_signed_manifest_that_makes_no_sense(
    edit: Callable[[dict[str, Any]], Any], message: str, bundle: Path, tmp_path: Path
) -> None:
    odd = edit_manifest(copied(bundle, tmp_path), edit)
    assert message in refused("generate", odd, "--prompt", "a", "--no-speculation")


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    """Return the data with the bits of `bit` flipped in one byte."""
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]


def _refuses(bundle: Path, name: str, original: Manifest | None) -> None:
    """Check that a bundle with one changed file is refused in one line that names the file.

    A changed manifest may still have its old meaning, for example if one space has become another. Then it is read.
    """
    try:
        opened = open_bundle(bundle)
        opened.check()
    except BundleError as e:
        assert "\n" not in str(e)
        assert name in str(e) or "newer than" in str(e) or "manifest" in str(e), e
    else:
        assert name == MANIFEST and opened.manifest == original
