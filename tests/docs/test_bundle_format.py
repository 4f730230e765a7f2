"""The page on the bundle format names every field of the manifest, with its type, its default and its meaning."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import pytest

from specc.exactness.golden import Case
from specc.runtime import block, manifest, recipe, tree, width_invariance
from specc.runtime.engines.inductor import DTYPES
from specc.runtime.engines.ort_device import TYPES
from specc.runtime.json_codec import from_json, to_json
from specc.runtime.manifest import Manifest, check_names

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bundle-format.md").read_text(encoding="utf-8")
CLASSES: dict[str, Any] = {
    cls.__name__: cls
    for module in (manifest, block, tree, recipe, width_invariance)
    for cls in vars(module).values()
    if dataclasses.is_dataclass(cls) and isinstance(cls, type) and cls.__module__ == module.__name__
}
NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", Any: "any", types.NoneType: "null"}


class Row(NamedTuple):
    """A row of a table of fields."""

    name: str
    type: str
    default: str
    meaning: str


def tables() -> dict[str, list[Row]]:
    """Return the tables of the page that stand below a class's name, by that name."""
    matches: dict[str, list[Row]] = {}
    for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]:
        title = section.split("\n", 1)[0]
        if title in CLASSES:
            lines = [line for line in section.splitlines() if line.startswith("| `")]
            matches[title] = [Row(*(cell.strip() for cell in line[1:-1].split("|"))) for line in lines]
    return matches


TABLES = tables()


def written(kind: Any) -> str:
    """Return a field's type as the page writes it."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(map(written, args))
    if origin is tuple:
        return f"array of {written(args[0])}" if args[-1] is Ellipsis else f"[{', '.join(map(written, args))}]"
    if origin in (dict, Mapping):
        return f"map of {written(args[1])}"
    return NAMES.get(kind) or str(kind.__name__)


def default(field: dataclasses.Field[Any]) -> str:
    """Return a field's default as the page writes it: as JSON, and nothing if it has none."""
    if field.default is not dataclasses.MISSING:
        return f"`{json.dumps(to_json(field.default))}`"
    return "" if field.default_factory is dataclasses.MISSING else f"`{json.dumps(to_json(field.default_factory()))}`"


def attributes(cls: type) -> dict[str, str]:
    """Return the meanings that a class's docstring gives its fields, by name."""
    text = inspect.getdoc(cls) or ""
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text.partition("Attributes:\n")[2], re.MULTILINE)
    return {name: " ".join(meaning.split()) for name, meaning in entries}


def test_the_page_has_a_table_for_every_class_that_a_manifest_holds() -> None:
    assert TABLES.keys() == CLASSES.keys()


@pytest.mark.parametrize("name", CLASSES)
def test_a_table_has_the_fields_of_its_class_with_types_and_defaults(name: str) -> None:
    hints = get_type_hints(CLASSES[name])
    fields = list(dataclasses.fields(CLASSES[name]))
    expected = [(f"`{f.name}`", written(hints[f.name]), default(f)) for f in fields]
    assert [row[:3] for row in TABLES[name]] == expected


@pytest.mark.parametrize("name", [n for n, cls in CLASSES.items() if cls.__module__ == manifest.__name__])
def test_a_table_says_what_the_docstring_says(name: str) -> None:
    documented = attributes(CLASSES[name])
    assert documented.keys() == {f.name for f in dataclasses.fields(CLASSES[name])}
    assert {row.name.strip("`"): row.meaning for row in TABLES[name]} == documented


def test_the_example_is_a_manifest() -> None:
    (example,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    data = json.loads(example)
    check_names(from_json(Manifest, data))
    assert to_json(from_json(Manifest, data)) == data, "a writer writes every field"


def test_the_page_shows_how_the_digest_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    content = (ROOT / "tests" / "bundles" / "schema-2" / "manifest.json").read_bytes()
    monkeypatch.chdir(tmp_path)
    Path("manifest.json").write_bytes(content)
    exec(code, {"sha256": hashlib.sha256})
    Path("manifest.json").write_bytes(content.replace(b"tests/tiny.py", b"tests/tiny.pz"))
    with pytest.raises(AssertionError):
        exec(code, {"sha256": hashlib.sha256})


def test_the_page_names_every_type_with_its_size_and_what_onnx_and_safetensors_call_it() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d) \| (\w+) \| (\w+) \|$", PAGE, re.MULTILINE)
    assert {name: int(size) for name, size, _, _ in rows} == manifest.SIZES
    # The numbers of TensorProto.DataType.
    numbers = {"FLOAT": 1, "UINT8": 2, "INT32": 6, "INT64": 7, "BOOL": 9, "FLOAT16": 10, "BFLOAT16": 16}
    assert {name: numbers[onnx] for name, _, onnx, _ in rows} == {name: number for name, (number, _) in TYPES.items()}
    assert all(DTYPES[stored] == name for name, _, _, stored in rows if stored in DTYPES)


def test_every_example_is_linked_from_the_rule_that_it_shows() -> None:
    examples = (ROOT / "docs" / "bundle-examples.md").read_text(encoding="utf-8")
    numbers = re.findall(r"^### (\d+)\. ", examples, re.MULTILINE)
    linked = re.findall(r"bundle-examples\.md#(\d+)-", PAGE)
    assert sorted(linked, key=int) == numbers


def test_golden_outputs_have_the_fields_that_the_page_names() -> None:
    section = PAGE.partition("## Golden outputs")[2]
    names = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert names == [f.name for f in dataclasses.fields(Case)]


def test_the_page_names_every_backend_drafter_rule_and_type_of_weights() -> None:
    root = Path(__file__).parents[2] / "runtime"
    from specc.recipes import METHODS
    from specc.runtime.engines import BACKENDS

    names = {m.drafter for m in METHODS.values()} | {m.acceptance for m in METHODS.values()}
    names |= {f.stem for f in (root / "acceptance").glob("[a-z]*.py")} | set(BACKENDS) | set(block.WEIGHTS)
    assert {name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", PAGE)} == set()


def files_of(folder: str) -> list[str]:
    """Return the names of the modules of a folder of the runtime: each has one drafter, or one rule."""
    return sorted(file.stem for file in (ROOT / "runtime" / folder).glob("[a-z]*.py"))


def rows_of(section: str) -> list[tuple[str, str]]:
    """Return the first two cells of the rows of a section's table."""
    text = PAGE.partition(f"### {section}")[2].partition("\n## ")[0].partition("\n### ")[0]
    return re.findall(r"^\| (`.*?) \| (.*?)\| ", text, re.MULTILINE)


def test_the_page_has_each_acceptance_rule_with_its_parameters_and_the_version_that_specc_has() -> None:
    from specc.runtime.method import VERSIONS, load_acceptance

    expected = {}
    for name in files_of("acceptance"):
        rule = load_acceptance(name)
        defaults = inspect.signature(rule).parameters
        expected[f"`{name}`"] = ", ".join(f"`{parameter}` {defaults[parameter].default}" for parameter in rule.ranges)
    assert {name: parameters.strip() for name, parameters in rows_of("Acceptance rules")} == expected
    assert not VERSIONS, "the page describes version 1 of each drafter and rule; describe the others, too"


def test_the_page_has_a_row_for_each_drafter() -> None:
    names = [name for cell, _ in rows_of("Drafters") for name in re.findall(r"`([\w-]+)`", cell)]
    assert sorted(name.replace("-", "_") for name in names) == files_of("drafters")
