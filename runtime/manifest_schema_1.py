"""Manifests of schema 1, which lie on users' disks for ever: their digest, and their translation to schema 2.

Schema 1 left out fields that had their defaults. The codec fills them in for every schema.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

# Schema 1 called a tensor's type by ONNX's name, and a cache's by numpy's.
DTYPES = {"float": "float32"}
# Inputs that no weights file fills. Schema 1 took every other one that is no part of a cache for a weight.
HOST = {"input_ids", "past_len", "widths", "row", "parents", "mask", "depth"}
CACHED = "past_key_values."


def digest(data: Any) -> str:
    """Return the digest of plain data without its `manifest_sha256`: of `json.dumps` with sorted names, in ASCII."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def translate(data: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest in the words of schema 2. Its version stays 1, and what does not fit stays as it is.

    Args:
        data: what json read, of which nothing was checked.
    """
    engines, caches = data.get("engines"), data.get("caches")
    changes: dict[str, Any] = {}
    if isinstance(engines, list):
        changes["engines"] = [_engine(engine) for engine in engines]
    if isinstance(caches, dict):
        changes["caches"] = {name: _dtype(cache) for name, cache in caches.items()}
    return {**data, **changes}


def _engine(engine: Any) -> Any:
    """Return an engine with types in the words of schema 2, and with the weights among its inputs."""
    if not isinstance(engine, dict):
        return engine
    tensors = {k: [_dtype(t) for t in engine[k]] for k in ("inputs", "outputs") if isinstance(engine.get(k), list)}
    block = engine.get("block")
    model = block.get("model", "target") if isinstance(block, dict) else "target"
    prefix = "" if model == "target" else f"{model}."
    names = [t["name"] for t in tensors.get("inputs", ()) if isinstance(t, dict) and isinstance(t.get("name"), str)]
    weights = {name: prefix + name for name in names if name not in HOST and not name.startswith(CACHED)}
    return {**engine, **tensors, "weight_inputs": weights} if weights else {**engine, **tensors}


def _dtype(data: Any) -> Any:
    """Return a tensor or a cache with its type in the words of schema 2."""
    word = data.get("dtype") if isinstance(data, dict) else None
    return {**data, "dtype": DTYPES[word]} if isinstance(word, str) and word in DTYPES else data
