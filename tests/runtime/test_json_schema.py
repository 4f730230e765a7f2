"""A dataclass's JSON Schema refuses what the codec refuses for its type."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
from jsonschema import Draft202012Validator

from specc.runtime.errors import BundleError
from specc.runtime.json_codec import from_json
from specc.runtime.json_schema import json_schema


@dataclass(frozen=True)
class Leaf:
    """A leaf.

    Attributes:
        word: one of two,
            in two lines.
    """

    word: Annotated[str, ("a", "b")] = "a"


@dataclass(frozen=True)
class Twig:
    """A twig without a list of its fields."""

    leaves: tuple[Leaf, ...]
    pair: tuple[int, int]


@dataclass(frozen=True)
class Root:
    """A root."""

    part: Leaf | Twig
    share: float
    names: dict[str, bool] = field(default_factory=dict)
    count: int | None = None
    free: Any = 3


SCHEMA = json_schema(Root)
VALIDATOR = Draft202012Validator(SCHEMA)
WHOLE: dict[str, Any] = {
    "part": {"leaves": [{"word": "b"}, {}], "pair": [1, 2]},
    "share": 1,
    "names": {"x-any": True},
    "count": 4,
    "free": [{"a": None}],
}


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert list(SCHEMA["$defs"]) == ["Leaf", "Twig"]
    # JSON Schema's regular expressions are those of JavaScript, which refuses an escaped hyphen.
    assert SCHEMA["patternProperties"] == {"^x-": True}


def test_fields_have_their_meaning_and_their_default() -> None:
    assert SCHEMA["$defs"]["Leaf"]["properties"]["word"] == {
        "description": "one of two, in two lines.",
        "type": "string",
        "enum": ["a", "b"],
        "default": "a",
    }
    assert SCHEMA["properties"]["names"]["default"] == {} and SCHEMA["properties"]["count"]["default"] is None
    assert SCHEMA["required"] == ["part", "share"]


@pytest.mark.parametrize("fields", [{}, {"part": {"word": "a"}}, {"count": None}, {"x-more": 1}, {"share": 0.5}])
def test_what_the_codec_reads_is_valid(fields: dict[str, Any]) -> None:
    from_json(Root, {**WHOLE, **fields})
    assert list(VALIDATOR.iter_errors({**WHOLE, **fields})) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"part": 3},
        {"part": {"leaves": []}},
        {"part": {"leaves": [], "pair": [1, 2], "word": "a"}},
        {"part": {"leaves": [], "pair": [1, 2, 3]}},
        {"part": {"leaves": [], "pair": [1, "2"]}},
        {"part": {"leaves": {}, "pair": [1, 2]}},
        {"share": "1"},
        {"share": True},
        {"share": None},
        {"names": {"a": 1}},
        {"names": []},
        {"count": "4"},
        {"count": False},
        {"count": 0.5},
        {"more": 1},
        {"X-more": 1},
    ],
)
def test_what_the_codec_refuses_for_its_type_is_invalid(fields: dict[str, Any]) -> None:
    with pytest.raises(BundleError):
        from_json(Root, {**WHOLE, **fields})
    assert list(VALIDATOR.iter_errors({**WHOLE, **fields})) != []


@pytest.mark.parametrize("name", ["part", "share"])
def test_a_field_without_a_default_must_be_there(name: str) -> None:
    data = {key: value for key, value in WHOLE.items() if key != name}
    with pytest.raises(BundleError, match="is missing"):
        from_json(Root, data)
    assert [e.validator for e in VALIDATOR.iter_errors(data)] == ["required"]


def test_a_text_that_is_no_choice_is_invalid() -> None:
    assert list(VALIDATOR.iter_errors({**WHOLE, "part": {"word": "c"}})) != []
