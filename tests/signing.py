"""Manifests as a stranger could sign them, by the rules of docs/bundle-format.md and without the runtime's code."""

from __future__ import annotations

import hashlib
import json
from typing import Any

ZEROS = "0" * 64


def signed(data: dict[str, Any]) -> bytes:
    """Return the bytes of a manifest, with the digest that its schema asks for. An old digest in `data` is dropped."""
    fields = {name: value for name, value in data.items() if name != "manifest_sha256"}
    if fields.get("schema") == 1:
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()
        return json.dumps({**fields, "manifest_sha256": digest}).encode()
    return resigned(f"{json.dumps({**fields, 'manifest_sha256': ZEROS}, indent=1)}\n".encode())


def resigned(content: bytes) -> bytes:
    """Return the bytes of a manifest of schema 2 with another digest in the place of the old one."""
    digest = hashlib.sha256(content[:-68] + ZEROS.encode() + content[-4:]).hexdigest()
    return content[:-68] + digest.encode() + content[-4:]
