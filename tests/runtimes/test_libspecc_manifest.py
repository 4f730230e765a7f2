"""libspecc reads manifests as docs/bundle-format.md says: names of fields, defaults, and faults that JSON allows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from libspecc import LibraryError, Model, Session
from shell import copied, edit_manifest
from signing import resigned

from specc.exactness.golden import read_cases

FROZEN = Path(__file__).parents[1] / "bundles" / "schema-3"
SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "manifest.schema.json").read_text())
pytestmark = [pytest.mark.process, pytest.mark.xdist_group("libspecc")]

# One object of each kind in a manifest.
OBJECTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "manifest": lambda m: m,
    "model": lambda m: m["model"],
    "engine": lambda m: m["engines"][1],
    "block": lambda m: m["engines"][1]["block"],
    "topology": lambda m: m["engines"][1]["block"]["topology"],
    "layers": lambda m: m["engines"][1]["block"]["layers"],
    "input": lambda m: m["engines"][1]["inputs"][0],
    "output": lambda m: m["engines"][1]["outputs"][0],
    "pass": lambda m: m["engines"][1]["passes"][0],
    "cache": lambda m: m["caches"]["target"],
    "file": lambda m: m["files"]["decode.onnx"],
    "recipe": lambda m: m["recipes"][1],
    "invariance": lambda m: m["width_invariance"],
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return copied(FROZEN, tmp_path)


def refusal(bundle: Path) -> str:
    """Return the line by which libspecc refuses a bundle."""
    with pytest.raises(LibraryError) as error:
        Model(bundle)
    return str(error.value)


def test_an_unknown_field_is_refused_in_every_kind_of_object_and_one_of_a_tool_is_not(bundle: Path) -> None:
    manifest = (bundle / "manifest.json").read_bytes()
    for kind, object_of in OBJECTS.items():
        (bundle / "manifest.json").write_bytes(manifest)
        edit_manifest(bundle, lambda m, of=object_of: of(m).update(novelty=1))  # type: ignore[misc]
        assert "has a field 'novelty' that the format does not have; compile the bundle again" in refusal(bundle), kind
    (bundle / "manifest.json").write_bytes(manifest)
    edit_manifest(bundle, lambda m: [of(m).update({"x-novelty": 1}) for of in OBJECTS.values()])
    Model(bundle).close()


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b'"provisional":', b'"provisional": false, "provisional":', "has a name twice in an object"),
        (b'"revision": "', b'"revision": "\\u001b[2J', "has a text with a control character"),
        (b'"revision": "', b'"revision": "\\u0085', "has a text with a control character"),
        (b'"revision": "', b'"revision": "\\ud83d', "is not JSON"),
        (b'"near_tie_tolerance": 0.001', b'"near_tie_tolerance": 1e999', "is not JSON"),
        (b'"measured": ', b'"measured": ' + b"[" * 40 + b"]" * 40 + b', "x-measured": ', "is nested too deep"),
    ],
)
def test_what_json_alone_would_allow_is_refused(old: bytes, new: bytes, reason: str, bundle: Path) -> None:
    file = bundle / "manifest.json"
    content = file.read_bytes()
    assert old in content
    file.write_bytes(resigned(content.replace(old, new, 1)))
    assert refusal(bundle) == f"{file} {reason}; compile the bundle again"


def without_defaults(value: Any, schema: dict[str, Any]) -> Any:
    """Return plain data without the fields that have their default.

    Args:
        value: the data.
        schema: the part of the JSON Schema that describes it.
    """
    if "$ref" in schema:
        schema = SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]]
    if isinstance(value, list):
        return [without_defaults(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    others = schema.get("additionalProperties")
    fields = {name: schema.get("properties", {}).get(name, others or {}) for name in value}
    names = [name for name, field in fields.items() if "default" not in field or field["default"] != value[name]]
    return {name: without_defaults(value[name], fields[name]) for name in names}


def test_a_field_that_is_left_out_has_its_default(bundle: Path) -> None:
    dropped = []

    def shorten(manifest: dict[str, Any]) -> None:
        for engine in manifest["engines"]:
            engine["weights"] = ""  # The manifest's, since there is one file.
        shorter = without_defaults(manifest, SCHEMA)
        dropped.extend(manifest.keys() - shorter.keys())
        manifest.clear()
        manifest.update(shorter)

    model = Model(edit_manifest(bundle, shorten))
    assert {"weights", "measured", "near_tie_tolerance"} <= set(dropped)
    session = Session(model)
    case = read_cases(FROZEN / "golden.jsonl")[0]
    for recipe in ("plain", "prompt-lookup", "early-exit"):
        assert session.generate(case.prompt_ids, len(case.token_ids), recipe)[0] == case.token_ids
    session.close()
    model.close()
