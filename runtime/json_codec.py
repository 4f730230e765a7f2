"""Dataclasses to JSON and back, checked. An error names the path of the field that does not fit.

docs/bundle-format.md gives the rules. They cover what the manifest's dataclasses use: nested dataclasses, unions of
dataclasses or of plain types, tuples, mappings with string keys, numbers, strings, booleans and Any.
"""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import BundleError, SpeccError

T = TypeVar("T")
DEPTH = 32  # Of lists and objects in a manifest.
BUNDLE_REMEDY = "; compile the bundle again"  # ends the messages; who reads another file puts its own in this place
MOST_CHARACTERS = 60  # of a value in a message
LARGEST = sys.float_info.max  # JSON has whole numbers beyond it, which Python reads and no float can hold.
IGNORED = "x-"  # begins the names of fields that tools add to an object, and that no reader needs


def to_json(value: Any) -> Any:
    """Turn a dataclass into plain data that json can write.

    All fields are written, so that no reader must know a default. A member of a union carries no tag: its fields tell
    which one it is.
    """
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return value


def from_json(kind: type[T], data: Any, where: str = "manifest") -> T:
    """Build a `kind` from plain data.

    A field that is left out gets its default. A field whose name begins with IGNORED is ignored.

    Args:
        kind: a dataclass.
        data: what json read.
        where: the path that messages begin with.

    Raises:
        BundleError: a field is unknown, missing, of the wrong type, or refused by its class.
    """
    return _read(kind, data, where)  # type: ignore[no-any-return]


def check_plain(data: Any, where: str = "manifest", depth: int = 0) -> None:
    """Check the texts and the nesting of plain data, which specc may print.

    Args:
        data: what json read.
        where: the path that messages begin with.
        depth: how deep the data lies.

    Raises:
        BundleError: a text has control characters, which could steer a terminal, or half of a surrogate pair; or lists
            and objects are nested deeper than DEPTH.
    """
    if depth > DEPTH:
        raise BundleError(f"{where}: it is nested more than {DEPTH} deep{BUNDLE_REMEDY}")
    if isinstance(data, str) and not data.isprintable():
        raise BundleError(f"{where}: {data!a} has characters that cannot be printed{BUNDLE_REMEDY}")
    if isinstance(data, list):
        for item in data:
            check_plain(item, where, depth + 1)
    elif isinstance(data, dict):
        for key, value in data.items():
            check_plain(key, where)
            check_plain(value, f"{where}.{key}", depth + 1)


def _read(kind: Any, data: Any, where: str) -> Any:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return data
    if origin in (Union, types.UnionType):
        return _read(_member(args, data, where), data, where)
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, data, where)
    if origin is tuple:
        _expect(list, data, where)
        if args[-1] is not Ellipsis and len(data) != len(args):
            raise BundleError(f"{where}: expected {len(args)} items, found {_short(data)}{BUNDLE_REMEDY}")
        return tuple(_read(args[0], v, f"{where}[{i}]") for i, v in enumerate(data))
    if origin in (dict, Mapping):
        _expect(dict, data, where)
        return {k: _read(args[1], v, f"{where}.{k}") for k, v in data.items()}
    _expect((int, float) if kind is float else kind, data, where)
    if kind is float and not abs(data) <= LARGEST:
        raise BundleError(f"{where}: {_short(data)} is not a finite number{BUNDLE_REMEDY}")
    return data


_hints = cache(get_type_hints)


def _read_dataclass(kind: Any, data: Any, where: str) -> Any:
    _expect(dict, data, where)
    data = _without_ignored(data)
    hints, fields = _hints(kind), {f.name: f for f in dataclasses.fields(kind)}
    if unknown := sorted(data.keys() - fields.keys()):
        raise BundleError(f"{where}: unknown field {unknown[0]!r}{BUNDLE_REMEDY}")
    for name, f in fields.items():
        no_default = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if no_default and name not in data:
            raise BundleError(f"{where}: field {name!r} is missing{BUNDLE_REMEDY}")
    try:
        return kind(**{k: _read(hints[k], v, f"{where}.{k}") for k, v in data.items()})
    except BundleError:
        raise
    except SpeccError as e:  # A class such as Tree refuses values that have the right type.
        raise BundleError(f"{where}: {e}") from e


def _without_ignored(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object without the fields that tools added."""
    return {name: value for name, value in data.items() if not name.startswith(IGNORED)}


def _short(data: Any) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(data)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


def _member(kinds: tuple[Any, ...], data: Any, where: str) -> Any:
    """Find the member of a union that `data` is: a dataclass by its exact set of fields, a plain type by its class.

    Raises:
        BundleError: no member fits.
    """
    for kind in kinds:
        if dataclasses.is_dataclass(kind):
            if isinstance(data, dict) and _without_ignored(data).keys() == {f.name for f in dataclasses.fields(kind)}:
                return kind
        elif isinstance(data, types.NoneType if kind is None else get_origin(kind) or kind):
            return kind
    names = ", ".join(getattr(k, "__name__", str(k)) for k in kinds)
    raise BundleError(f"{where}: {_short(data)} fits none of {names}{BUNDLE_REMEDY}")


def _expect(kind: Any, data: Any, where: str) -> None:
    """Raise a BundleError unless `data` is a `kind`. In Python a bool is an int; here it is not."""
    if not isinstance(data, kind) or (isinstance(data, bool) and kind is not bool):
        name = getattr(kind, "__name__", "number")
        raise BundleError(f"{where}: expected {name}, found {_short(data)}{BUNDLE_REMEDY}")
