"""Checks of what a manifest notes for people: how recipes were measured, and how good a quantised target is.

No engine depends on it, but tables print it. A row may have other fields, too: tools add their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import TYPE_CHECKING, Any

from .errors import BundleError

if TYPE_CHECKING:
    from .manifest import Manifest

NUMBER = (int, float)
Types = Mapping[str, type | tuple[type, ...]]
MEASURED: Types = {
    "recipe": str, "lossless": bool, "exactness": str, "tokens_per_second": NUMBER, "speedup": NUMBER,
    "exact_speedup": NUMBER, "mean_acceptance_length": NUMBER, "cases": int, "of_cases": int, "tokens": int,
    "identical": int, "near-tie": int, "diverged": int, "lossy": int,
}  # fmt: skip
ORIGINAL: Types = {"tokens": int, "agreement": NUMBER}
PERPLEXITY: Types = {"text": str, "tokens": int, "sha256": str, "original": NUMBER, "bundle": NUMBER}


def check_notes(manifest: Manifest) -> None:
    """Check the rows of `measured`, and `original` and `perplexity` in `extra`.

    Raises:
        BundleError: a field that tables print is missing or has another type.
    """
    for number, row in enumerate(manifest.measured):
        _check_fields(f"manifest.measured[{number}]", row, MEASURED, ("recipe",))
    if (original := manifest.extra.get("original")) is not None:
        _check_fields("manifest.extra.original", original, ORIGINAL, tuple(ORIGINAL))
    rows = manifest.extra.get("perplexity", [])
    if not isinstance(rows, list):
        raise _unfit("manifest.extra.perplexity", "list", rows)
    for number, row in enumerate(rows):
        _check_fields(f"manifest.extra.perplexity[{number}]", row, PERPLEXITY, ("sha256", "original"))


def _check_fields(where: str, row: Any, types: Types, required: tuple[str, ...]) -> None:
    if not isinstance(row, Mapping):
        raise _unfit(where, "object", row)
    for name in required:
        if name not in row:
            raise BundleError(f"{where}: field {name!r} is missing; compile the bundle again")
    for name, kind in types.items():
        value = row.get(name)
        is_wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        if name in row and (is_wrong or (isinstance(value, float) and not isfinite(value))):
            raise _unfit(f"{where}.{name}", "number" if kind is NUMBER else getattr(kind, "__name__", ""), value)


def _unfit(where: str, expected: str, value: Any) -> BundleError:
    return BundleError(f"{where}: expected {expected}, found {value!a}; compile the bundle again")
