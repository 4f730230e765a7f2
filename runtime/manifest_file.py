"""The file `manifest.json`: its bytes, its digest and its schema version. docs/bundle-format.md specifies them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from . import manifest_schema_1
from .errors import BundleError, first_line
from .json_codec import check_plain, from_json, to_json
from .manifest import SCHEMA, Manifest

MOST_BYTES = 64 << 20  # Of a manifest. One with twenty engines has 200 kB.
DIGITS = 64  # of a SHA-256, in hexadecimal
# The file ends with HEAD, the digits of its digest, and TAIL. JSON has no line feed inside a text, so HEAD stands in
# none: the digest is the object's last field.
HEAD, TAIL = b'\n "manifest_sha256": "', b'"\n}\n'


def read_manifest(file: Path) -> Manifest:
    """Read `manifest.json`, and check its schema version, its digest, and its fields one by one.

    Raises:
        FileNotFoundError: it is not there.
        BundleError: it is unreadable, newer than this runtime, was altered, or a field does not fit.
    """
    faults: list[str] = []
    try:
        content = _read_bounded(file)
        data = _parse(content.decode("utf-8"), faults)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as e:
        raise BundleError(f"{file} cannot be read ({first_line(e)}); compile the bundle again") from e
    if not isinstance(data, dict):
        raise BundleError(f"{file} was altered after compiling; compile the bundle again")
    schema = data.get("schema")
    if type(schema) is not int or schema < 1:
        raise BundleError(f"{file}: schema is {schema!a}, and must be 1 to {SCHEMA}; compile the bundle again")
    if schema > SCHEMA:
        raise BundleError(f"{file.parent} has schema version {schema}, newer than {SCHEMA}; upgrade specc")
    check_plain(data)
    digits = data.pop("manifest_sha256", None)
    if schema > 1:
        _check_ending(file, content)
    if digits != (manifest_schema_1.digest(data) if schema == 1 else digest(content)):
        raise BundleError(f"{file} was altered after compiling; compile the bundle again")
    if schema > 1 and faults:
        raise BundleError(f"{file}: {faults[0]}; compile the bundle again")
    return from_json(Manifest, manifest_schema_1.translate(data) if schema == 1 else data)


def manifest_text(manifest: Manifest) -> str:
    """Return the text of `manifest.json`, with its digest, in the newest schema.

    Raises:
        BundleError: a number is not finite, which JSON has no word for.
    """
    data = {**to_json(replace(manifest, schema=SCHEMA)), "manifest_sha256": "0" * DIGITS}
    try:
        text = json.dumps(data, indent=1, allow_nan=False) + "\n"
    except ValueError as e:
        raise BundleError(f"the manifest cannot be written ({first_line(e)}); check the weights of the model") from e
    before, after = text[: -DIGITS - len(TAIL)], text[-len(TAIL) :]
    return before + digest(text.encode()) + after


def digest(content: bytes) -> str:
    """Return the SHA-256 of a manifest's bytes, with zeros in the place of the digits before TAIL."""
    before = content[: -DIGITS - len(TAIL)]
    return hashlib.sha256(before + b"0" * DIGITS + TAIL).hexdigest()


def _check_ending(file: Path, content: bytes) -> None:
    """Check that the digest stands at its place.

    Raises:
        BundleError: it is elsewhere, or is not there.
    """
    digits = content[-DIGITS - len(TAIL) : -len(TAIL)]
    if not content.endswith(HEAD + digits + TAIL) or not re.fullmatch(b"[0-9a-f]{64}", digits):
        raise BundleError(f"{file} does not end with its manifest_sha256; compile the bundle again")


def _parse(text: str, faults: list[str]) -> Any:
    """Parse JSON, and note what Python reads and other languages read in another way, or not at all.

    Args:
        text: the file.
        faults: gets a line for each.

    Raises:
        ValueError: the text is not JSON.
    """

    def read_object(items: list[tuple[str, Any]]) -> dict[str, Any]:
        data = dict(items)
        if len(data) < len(items):
            names = [name for name, _ in items]
            repeated = next(name for name in names if names.count(name) > 1)
            faults.append(f"field {repeated!a} is there twice")
        return data

    def read_float(word: str) -> float:
        number = float(word)
        if not isfinite(number):
            faults.append(f"{word} is not a finite number")
        return number

    return json.loads(text, object_pairs_hook=read_object, parse_constant=read_float, parse_float=read_float)


def _read_bounded(file: Path) -> bytes:
    """Read a manifest. It may be a link, which could lead to a pipe or to a device without an end.

    Raises:
        OSError: it is not there, or cannot be read.
        ValueError: it is not a regular file, or has more than MOST_BYTES.
    """
    if file.exists() and not file.is_file():
        raise ValueError("it is not a regular file")
    with file.open("rb") as opened:
        data = opened.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES >> 20} MiB")
    return data
