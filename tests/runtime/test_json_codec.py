"""The manifest's JSON: every class of the vocabulary there and back, and what does not fit named by its path."""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.runtime import block, manifest, recipe, tree
from specc.runtime.block import WEIGHTS, Block, Frontier, GuessTree, Layers, Parents, Pruning
from specc.runtime.errors import BundleError
from specc.runtime.json_codec import from_json, to_json
from specc.runtime.manifest import SCHEMA, CacheSpec, EngineSpec, FileSpec, Manifest, ModelSpec, PassRecord, Tensor
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree

BLOCKS = (
    Block(Tree((-1, 0, 0, 1))),
    Block(Parents(12), ("ids", "top_k:8", "hidden:-1")),
    Block(GuessTree((-1, 0, 1, 2), 2, "any"), ("ids", "top_k:8")),
    Block(GuessTree((-1, 0, 0, 1), 2, "any"), ("ids", "top_k:8", "kept"), pruning=Pruning(1, 1)),
    Block(Frontier(4, 16), layers=Layers((1,), (2, 3), 5), last_row=True, model="assistant", cache="assistant"),
)
PASSES = (
    PassRecord(name="BakeTree()", changed=2, nodes_before=10, nodes_after=9, seconds=0.5),
    PassRecord(name="Other()", changed=0, nodes_before=9, nodes_after=9, seconds=1),
)
ENGINES = tuple(
    EngineSpec(
        name=f"engine-{i}",
        backend="onnx",
        file=f"{i}.onnx",
        block=b,
        layers=("0", "1"),
        inputs=(Tensor("input_ids", "int64", (1, 4)),),
        outputs=(Tensor("ids", "int64", (1, 4)),),
        passes=PASSES,
    )
    for i, b in enumerate(BLOCKS)
)
MANIFEST = Manifest(
    schema=SCHEMA,
    model=ModelSpec(
        source="a/model",
        revision="main",
        architecture="AnyForCausalLM",
        vocab_size=24,
        layers=4,
        context=64,
        eos_token_ids=(0, 2),
    ),
    engines=ENGINES,
    caches={"target": CacheSpec(192, {"0": (3, 64), "1": (3, 64)}), "assistant": CacheSpec(192, {}, "float16")},
    recipes=(
        Recipe(name="any", drafter="any", verify=("engine-0",)),
        Recipe(
            name="b",
            drafter="c",
            verify=(),
            acceptance="d",
            lossless=False,
            engines={"draft": "e"},
            parameters={"n": [1, None]},
        ),
    ),
    default_recipe="any",
    versions={"python": "3.11"},
    files={"0.onnx": FileSpec(7, "ab")},
    measured=({"recipe": "any", "speedup": 1.5},),
    extra={"any": ["thing", {"nested": None}]},
)
FREE = ("parameters", "measured", "extra")  # fields of type Any


def within(value: Any) -> Iterator[type]:
    """Yield the classes of a value and of all values in it."""
    if dataclasses.is_dataclass(value):
        yield type(value)
        value = vars(value)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ():
        yield from within(part)


def places(data: Any, where: str = "manifest") -> Iterator[tuple[str, Any, Any]]:
    """Yield each value in plain data: its path, its container, and its key there."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        if key not in FREE:
            path = f"{where}[{key}]" if isinstance(data, list) else f"{where}.{key}"
            yield path, data, key
            yield from places(value, path)


def test_the_example_has_every_class_of_the_vocabulary() -> None:
    classes = {
        c
        for m in (block, manifest, recipe, tree)
        for c in vars(m).values()
        if dataclasses.is_dataclass(c) and c.__module__ == m.__name__
    }
    assert set(within(MANIFEST)) == classes


def test_a_manifest_survives_json() -> None:
    assert from_json(Manifest, json.loads(json.dumps(to_json(MANIFEST)))) == MANIFEST


tuples = st.lists(st.integers(0, 9), max_size=3).map(tuple)
topologies = st.one_of(
    st.integers(1, 9).map(Tree.chain),
    st.builds(Parents, st.integers()),
    st.builds(Frontier, st.integers(), st.integers()),
)
outputs = st.lists(st.sampled_from(["ids", "logits", "top_k:3", "hidden:-1"])).map(tuple)
layers = st.builds(Layers, tuples, tuples, st.none() | st.integers())


blocks = st.builds(
    Block,
    topologies,
    outputs,
    layers,
    last_row=st.booleans(),
    weights=st.sampled_from(WEIGHTS),
    model=st.text(),
    cache=st.text(),
)


@given(blocks)
def test_a_block_survives_json_with_all_its_fields(b: Block) -> None:
    data = to_json(b)
    assert from_json(Block, json.loads(json.dumps(data))) == b
    assert list(data) == [f.name for f in dataclasses.fields(b)]


def test_a_field_that_is_left_out_gets_its_default() -> None:
    assert from_json(Block, {"topology": {"slots": 3}}) == Block(Parents(3))


def objects(data: Any, value: Any) -> Iterator[dict[str, Any]]:
    """Yield the object of each dataclass in a value, out of its plain data."""
    if dataclasses.is_dataclass(value):
        yield data
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}  # no cached properties
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, tuple) else ()
    for key, part in pairs:
        yield from objects(data[key], part)


def test_a_field_whose_name_begins_with_x_is_ignored_in_every_object() -> None:
    data = to_json(MANIFEST)
    names = [list(part) for part in objects(data, MANIFEST)]
    assert len(names) > 30
    for part in list(objects(data, MANIFEST)):
        part["x-any"] = {"y": [1]}
    assert from_json(Manifest, data) == MANIFEST


def test_a_name_of_a_map_may_begin_with_x() -> None:
    changed = dataclasses.replace(MANIFEST, versions={"x-compiler": "1"}, extra={"x-any": 2})
    assert from_json(Manifest, to_json(changed)) == changed


PLACES = [path for path, _, _ in places(to_json(MANIFEST))]


@pytest.mark.parametrize("path", PLACES)
def test_a_value_of_the_wrong_type_is_named_by_its_path(path: str) -> None:
    """An object stands where it cannot, or a boolean where an object should."""
    data = copy.deepcopy(to_json(MANIFEST))
    holder, key = next((holder, key) for p, holder, key in places(data) if p == path)
    holder[key] = True if isinstance(holder[key], dict) else {"wrong\n": 1}
    with pytest.raises(BundleError) as e:
        from_json(Manifest, data)
    assert str(e.value).startswith(f"{path}: ") and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("manifest.schema", True, "expected int, found True"),
        ("manifest.near_tie_tolerance", "1e-3", "expected number"),
        ("manifest.engines[2].block.last_row", 1, "expected bool, found 1"),
        ("manifest.engines[2].block.layers.exit_after", 0.5, "0.5 fits none of int"),
        ("manifest.engines[0].block.topology", {"slots": 1, "parents": [-1]}, "fits none of Tree, Parents, Frontier"),
        ("manifest.engines[0].block.topology", {"parents": [-1, 1]}, "slot 1 has parent 1"),
        ("manifest.engines[0].block", {"topology": {"slots": 3}, "outputs": ["idz"]}, "'idz'"),
        ("manifest.caches.target.layers.0", [3], "expected 2 items, found [3]"),
        ("manifest.files.0.onnx", {"bytes": 7}, "field 'sha256' is missing"),
        ("manifest.model", {"weight": 7}, "unknown field 'weight'"),
    ],
)
def test_a_value_that_does_not_fit_is_named(path: str, value: Any, named: str) -> None:
    data = to_json(dataclasses.replace(MANIFEST, near_tie_tolerance=0.5))
    holder, key = next((holder, key) for p, holder, key in places(data) if p == path)
    holder[key] = value
    with pytest.raises(BundleError) as e:
        from_json(Manifest, data)
    assert str(e.value).startswith(path) and named in str(e.value)


def test_a_whole_number_is_a_number() -> None:
    record = {"name": "", "changed": 0, "nodes_before": 0, "nodes_after": 0, "seconds": 1}
    assert from_json(PassRecord, record).seconds == 1
