"""docs/manifest.schema.json accepts the bundles of the repository, and refuses what the reader refuses for its type."""

from __future__ import annotations

import copy
import dataclasses
import json
import types
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
from jsonschema import Draft202012Validator

from specc.runtime.errors import BundleError
from specc.runtime.json_codec import from_json
from specc.runtime.manifest import SCHEMA, Manifest
from specc.runtime.manifest_schema_1 import translate

ROOT = Path(__file__).parents[2]
DOCUMENT = json.loads((ROOT / "docs" / "manifest.schema.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(DOCUMENT)
BUNDLES = sorted(file.parent for file in (ROOT / "tests" / "bundles").glob("*/manifest.json"))


def newest(bundle: Path) -> dict[str, Any]:
    """Return a bundle's manifest in the words of the newest schema."""
    data: dict[str, Any] = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    return {**(translate(data) if data["schema"] == 1 else data), "schema": SCHEMA}


def is_valid(data: Any) -> bool:
    return bool(VALIDATOR.is_valid(data))


def verdict(data: dict[str, Any]) -> str:
    """Tell whether the codec reads a manifest without its digest: read, or refused for a type or for a value."""
    try:
        from_json(Manifest, {name: value for name, value in data.items() if name != "manifest_sha256"})
    except BundleError as e:
        return "type" if e.__cause__ is None else "value"  # A class such as Tree refuses a value of the right type.
    return "read"


def assert_agrees(data: dict[str, Any], place: Any) -> str:
    """Check the document against the codec. What has the right types and a wrong value may be valid."""
    judged = verdict(data)
    assert is_valid(data) or judged != "read", place
    assert not is_valid(data) or judged != "type", place
    return judged


def test_the_document_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(DOCUMENT)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_a_bundle_of_the_repository_is_valid(bundle: Path) -> None:
    assert [f"{e.json_path}: {e.message[:200]}" for e in VALIDATOR.iter_errors(newest(bundle))] == []


def small() -> dict[str, Any]:
    """Return a manifest with one engine of each topology, so that each place is tried once."""
    data = newest(ROOT / "tests" / "bundles" / "schema-1")
    names = ("decode", "verify-dynamic-tree", "draft-early-exit")
    engines = [e for e in data["engines"] if e["name"] in names]
    for engine in engines:
        engine.update(inputs=engine["inputs"][:1], outputs=engine["outputs"][:1], passes=engine["passes"][:1])
    for name in ("files", "versions", "caches"):
        data[name] = dict(list(data[name].items())[:1])
    return {**data, "engines": engines, "recipes": data["recipes"][:1]}


def places(data: Any, kind: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the container and the key of each value whose type the manifest's classes name."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        kinds = [k for k in args if dataclasses.is_dataclass(k) and data and data.keys() == get_type_hints(k).keys()]
        kind = kinds[0] if kinds else None
    inner: list[tuple[Any, Any]] = []
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        inner = [(name, hints[name]) for name in data if name in hints]
    elif origin is tuple:
        inner = [(number, args[0]) for number in range(len(data))]
    elif origin in (dict, Mapping):
        inner = [(name, args[1]) for name in data]
    for key, part in inner:
        if part is not Any:
            yield data, key
            yield from places(data[key], part)


WRONG: tuple[Any, ...] = ("text", 7, -1, 0.5, True, None, [], {}, [[]], {"parents": [-1]}, ["text"])


@pytest.mark.thorough
def test_a_value_of_another_type_is_refused_where_the_reader_refuses_it() -> None:
    """Each value is replaced by values of all types."""
    data = small()
    assert assert_agrees(data, None) == "read" and is_valid(data)
    changes = list(places(data, Manifest))
    assert len(changes) > 100
    verdicts = Counter[str]()
    for (holder, key), wrong in product(changes, WRONG):
        if key != "schema":  # The codec leaves the version to the file's reader.
            value, holder[key] = holder[key], wrong
            verdicts[assert_agrees(data, (key, wrong))] += 1
            holder[key] = value
    assert verdicts["type"] > 5 * len(changes) and verdicts["read"] > len(changes) / 2


@pytest.mark.thorough
@pytest.mark.parametrize("change", ["removed", "added"])
def test_a_field_that_is_missing_or_unknown_is_refused_where_the_reader_refuses_it(change: str) -> None:
    whole = small()
    verdicts = Counter[str]()
    for number in range(len(list(places(whole, Manifest)))):
        data = copy.deepcopy(whole)
        holder, key = list(places(data, Manifest))[number]
        if change == "removed" and key != "schema":
            del holder[key]
        elif change == "added" and isinstance(holder, dict):
            holder["another"] = copy.deepcopy(holder[key])
        verdicts[assert_agrees(data, (number, key))] += 1
    assert verdicts["type"] > 40 and verdicts["read"] > 10


def test_the_digest_must_be_there_and_have_64_digits() -> None:
    whole = small()
    assert not is_valid({name: value for name, value in whole.items() if name != "manifest_sha256"})
    assert not is_valid({**whole, "manifest_sha256": "A" * 64}) and not is_valid({**whole, "schema": 1})
