"""The bytes of a manifest: its digest can be computed without reading JSON, and one reading of them is the only one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from signing import resigned, signed
from small_bundle import MANIFEST

from specc.runtime.errors import BundleError
from specc.runtime.json_codec import to_json
from specc.runtime.manifest import SCHEMA
from specc.runtime.manifest_file import manifest_text, read_manifest

TEXT = manifest_text(MANIFEST)
WITHOUT = f"{TEXT[:-91]}\n}}\n"


def refused(file: Path, content: bytes) -> str:
    """Write a manifest, and return the one line with which it is refused."""
    file.write_bytes(content)
    with pytest.raises(BundleError) as e:
        read_manifest(file)
    assert str(e.value).isprintable() and str(file) in str(e.value)
    return str(e.value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "manifest.json"


def test_a_manifest_survives_its_file(file: Path) -> None:
    file.write_text(TEXT, encoding="utf-8")
    assert read_manifest(file) == MANIFEST


def test_the_digest_is_that_of_the_bytes_with_zeros_for_its_digits() -> None:
    content = TEXT.encode()
    digits = content[-68:-4]
    assert hashlib.sha256(content[:-68] + b"0" * 64 + content[-4:]).hexdigest().encode() == digits
    assert content.endswith(b'\n "manifest_sha256": "' + digits + b'"\n}\n')


def test_every_field_is_written() -> None:
    data = json.loads(TEXT)
    assert list(data) == [*to_json(MANIFEST), "manifest_sha256"]
    assert data["engines"][0]["block"]["lanes"] == 1 and data["width_invariance"] is None


def test_a_manifest_of_an_earlier_schema_is_written_in_the_newest(file: Path) -> None:
    file.write_text(manifest_text(replace(MANIFEST, schema=1)), encoding="utf-8")
    assert read_manifest(file) == MANIFEST and MANIFEST.schema == SCHEMA


def test_a_number_that_json_has_no_word_for_is_not_written() -> None:
    with pytest.raises(BundleError, match=r"the manifest cannot be written \(.*\); check the weights of the model"):
        manifest_text(replace(MANIFEST, extra={"a": [float("nan")]}))


@pytest.mark.parametrize("byte", [0, 100, len(TEXT) // 2, len(TEXT) - 69, len(TEXT) - 50])
def test_a_changed_byte_is_found(file: Path, byte: int) -> None:
    content = bytearray(TEXT.encode())
    content[byte] = ord("1") if content[byte] == ord("0") else ord("0")
    refused(file, bytes(content))


ENDINGS = {
    "no digest": lambda text: WITHOUT,
    "a digest that is not the last field": lambda text: f"{{{text[-90:-3]},{WITHOUT[1:]}",
    "no line feed at the end": lambda text: text[:-1],
    "two line feeds at the end": lambda text: text + "\n",
    "upper-case digits": lambda text: text[:-68] + text[-68:-4].upper() + text[-4:],
    "fewer digits": lambda text: text[:-68] + text[-67:],
    "no space before the name": lambda text: text.replace('\n "manifest_sha256"', '\n"manifest_sha256"'),
    "line feeds of Windows": lambda text: text.replace("\n", "\r\n"),
    "another name that ends so": lambda text: text.replace('"manifest_sha256"', '"x-manifest_sha256"'),
    "a digest of an inner object": lambda text: text[:-2] + ',"x-more": 1}\n',
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_digest_that_is_not_at_its_place_is_refused(file: Path, ending: str) -> None:
    assert "does not end with its manifest_sha256" in refused(file, ENDINGS[ending](TEXT).encode())


def test_a_digest_inside_an_object_does_not_count(file: Path) -> None:
    content = TEXT.replace('\n "manifest_sha256"', '\n "x-a": {\n "manifest_sha256"').replace('"\n}\n', '"\n}\n}\n')
    assert "does not end with its manifest_sha256" in refused(file, content.encode())


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ('"weights":', '"weights": "a", "weights":', "field 'weights' is there twice"),
        ('"near_tie_tolerance": 0.001', '"near_tie_tolerance": NaN', "NaN is not a finite number"),
        ('"extra": {}', '"extra": {"a": [-Infinity]}', "-Infinity is not a finite number"),
        ('"extra": {}', '"extra": {"a": 1e999}', "1e999 is not a finite number"),
        ('"extra": {}', '"extra": {"a": 1, "a": 1}', "field 'a' is there twice"),
    ],
)
def test_what_other_languages_read_in_another_way_is_refused(file: Path, before: str, after: str, fault: str) -> None:
    assert before in TEXT
    assert f"{fault}; compile the bundle again" in refused(file, resigned(TEXT.replace(before, after, 1).encode()))


def test_two_digests_are_refused(file: Path) -> None:
    content = TEXT.replace("{", '{"manifest_sha256": "a",', 1).encode()
    assert "field 'manifest_sha256' is there twice" in refused(file, resigned(content))


@pytest.mark.parametrize("schema", [0, -1, True, 1.0, "2", None, [2]])
def test_a_schema_that_is_no_version_is_refused(file: Path, schema: Any) -> None:
    data = {**json.loads(TEXT), "schema": schema}
    assert f"schema is {schema!r}, and must be 1 to 3" in refused(file, signed(data))


def test_a_manifest_without_a_schema_is_refused(file: Path) -> None:
    data = {name: value for name, value in json.loads(TEXT).items() if name != "schema"}
    assert "schema is None, and must be 1 to 3" in refused(file, signed(data))


def test_a_newer_schema_is_refused_with_a_remedy(tmp_path: Path, file: Path) -> None:
    file.write_bytes(signed({**json.loads(TEXT), "schema": 4, "new": 1}))
    with pytest.raises(BundleError) as e:
        read_manifest(file)
    assert str(e.value) == f"{tmp_path} has schema version 4, newer than 3; upgrade specc"


def test_a_file_that_is_not_there_is_left_to_the_caller(file: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_manifest(file)
