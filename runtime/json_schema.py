"""A JSON Schema of a dataclass: what `json_codec` reads, as a document that any language can check with.

Source: JSON Schema 2020-12, json-schema.org. It covers the types that `json_codec` covers, and no more.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from .json_codec import IGNORED, to_json

DIALECT = "https://json-schema.org/draft/2020-12/schema"
PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}


def json_schema(kind: type) -> dict[str, Any]:
    """Return the JSON Schema of a dataclass, with the dataclasses that it holds under `$defs`.

    A field of `Annotated[str, (…)]` takes one of the texts in the tuple. The schema accepts more than `from_json`: it
    cannot tell 5.0 from the integer 5, and says nothing of what a class checks when it is made.

    Args:
        kind: the dataclass.
    """
    definitions: dict[str, Any] = {}
    root = _object(kind, definitions)
    return {"$schema": DIALECT, "title": kind.__name__, **root, "$defs": definitions}


def _object(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a dataclass itself. Those that it holds are put into `definitions`."""
    hints, meanings = get_type_hints(kind, include_extras=True), _meanings(kind)
    properties: dict[str, Any] = {}
    required: list[str] = []
    for field in dataclasses.fields(kind):
        schema = _schema(hints[field.name], definitions)
        if field.name in meanings:
            schema = {"description": meanings[field.name], **schema}
        if field.default is not dataclasses.MISSING:
            schema["default"] = to_json(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            schema["default"] = to_json(field.default_factory())
        else:
            required.append(field.name)
        properties[field.name] = schema
    return {
        "description": (inspect.getdoc(kind) or "").partition("\n")[0],
        "type": "object",
        "properties": properties,
        # `re.escape` is not for this: it escapes the hyphen, which regular expressions of JavaScript refuse.
        "patternProperties": {f"^{IGNORED}": True},
        "additionalProperties": False,
        "required": required,
    }


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a field's type."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return {**_schema(args[0], definitions), "enum": list(args[1])}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(member, definitions) for member in args]}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}  # its place, so that definitions stand in the order of their first use
            definitions[kind.__name__] = _object(kind, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if origin is tuple:
        length = {} if args[-1] is Ellipsis else {"minItems": len(args), "maxItems": len(args)}
        return {"type": "array", "items": _schema(args[0], definitions), **length}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(args[1], definitions)}
    return {} if kind is Any else {"type": PLAIN[kind]}


def _meanings(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of its fields, by name."""
    attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in entries}
