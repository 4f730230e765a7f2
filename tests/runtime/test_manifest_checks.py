"""A manifest that a stranger signed: whatever does not fit is refused in one line, before anything is loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shell import copied, edit_manifest

from specc.runtime.bundle import open_bundle
from specc.runtime.errors import BundleError, RecipeError
from specc.runtime.manifest_checks import check_logits

FROZEN = Path(__file__).parents[1] / "bundles/schema-1"
NEWEST = Path(__file__).parents[1] / "bundles/schema-3"
Edit = Callable[[dict[str, Any]], Any]
HUGE = 10**30


def engine(manifest: dict[str, Any], name: str = "decode") -> Any:
    return next(e for e in manifest["engines"] if e["name"] == name)


def without(name: str) -> Edit:
    return lambda m: m.update(engines=[e for e in m["engines"] if e["name"] != name])


def tensor(place: str, tensor_name: str, /, **fields: Any) -> Edit:
    return lambda m: next(t for t in engine(m)[place] if t["name"] == tensor_name).update(fields)


def nested(depth: int) -> Any:
    data: Any = 1
    for _ in range(depth):
        data = [data]
    return data


EDITS: dict[str, tuple[Edit, str]] = {
    "a capacity below zero": (lambda m: m["caches"]["target"].update(capacity=-5), "capacity is -5, and must be 1 to"),
    "a huge capacity": (lambda m: m["caches"]["target"].update(capacity=HUGE), "capacity is 1000"),
    "another capacity": (lambda m: m["caches"]["target"].update(capacity=385), "which is not in cache target"),
    "heads below zero": (lambda m: m["caches"]["target"]["layers"].update({"0": [-2, 16]}), "heads is -2"),
    "a cache named as a part of another": (
        lambda m: m["caches"].update({"target:1": m["caches"]["target"]}),
        "'target:1' has a ':' in its name",
    ),
    "no target cache": (lambda m: m["caches"].pop("target"), "target"),
    "an unknown type of rows": (lambda m: m["caches"]["target"].update(dtype="complex"), "unknown dtype 'complex'"),
    "an unknown type": (tensor("inputs", "input_ids", dtype="int8"), "unknown dtype 'int8'"),
    "another known type": (tensor("inputs", "input_ids", dtype="float32"), "input 'input_ids' is not [1, 1]"),
    "a dimension below zero": (tensor("inputs", "input_ids", shape=[1, -1]), "a dimension is -1"),
    "a huge dimension": (tensor("outputs", "logits", shape=[1, 1, HUGE]), "a dimension is 1000"),
    "another vocabulary": (tensor("outputs", "logits", shape=[1, 1, 511]), "output 'logits' is not [1, 1, 512]"),
    "an input without its name": (tensor("inputs", "past_len", name="past"), "input 'past_len' is not [1]"),
    "no layer of the cache": (
        tensor("inputs", "past_key_values.0.key", name="past_key_values.9.key"),
        "which is not in cache target",
    ),
    "a vocabulary of nothing": (lambda m: m["model"].update(vocab_size=0), "vocab_size is 0"),
    "a context below zero": (lambda m: m["model"].update(context=-1), "context is -1"),
    "threads below zero": (lambda m: engine(m).update(threads=-1), "threads is -1"),
    "no engine to decode": (without("decode"), "decode"),
    "an engine twice": (lambda m: m["engines"].append(engine(m)), "engine decode by onnx is there twice"),
    "a backend that cannot decode": (
        lambda m: engine(m, "prefill").update(backend="inductor"),
        "backend inductor has no engine 'decode'",
    ),
    "a tree for decoding": (lambda m: engine(m)["block"].update(topology={"slots": 1}), "does not run a chain"),
    "slots below zero": (lambda m: engine(m)["block"].update(topology={"slots": -1}), "engine decode has -1 slots"),
    "a span below the slots": (
        lambda m: engine(m)["block"].update(topology={"slots": 4, "span": 2}),
        "of a span of 2",
    ),
    "a measured row without its recipe": (lambda m: m.update(measured=[{"speedup": 1}]), "field 'recipe' is missing"),
    "a measured speed in words": (
        lambda m: m.update(measured=[{"recipe": "plain", "speedup": "fast"}]),
        "manifest.measured[0].speedup: expected number, found 'fast'",
    ),
    "a measured count that is a truth": (
        lambda m: m.update(measured=[{"recipe": "plain", "identical": True}]),
        "measured[0].identical: expected int, found True",
    ),
    "a measured speed that is no number": (
        lambda m: m.update(measured=[{"recipe": "plain", "tokens_per_second": float("nan")}]),
        "tokens_per_second: expected number, found nan",
    ),
    "an original that is a list": (lambda m: m.update(extra={"original": []}), "extra.original: expected object"),
    "an original without its share": (lambda m: m.update(extra={"original": {"tokens": 1}}), "'agreement' is missing"),
    "a perplexity that is no list": (lambda m: m.update(extra={"perplexity": 3}), "perplexity: expected list, found 3"),
    "a perplexity in words": (
        lambda m: m.update(extra={"perplexity": [{"sha256": "", "original": "low"}]}),
        "perplexity[0].original: expected number, found 'low'",
    ),
    "a draft that verifies": (
        lambda m: m["recipes"][0].update(verify=["draft-layer-skip"]),
        "recipe plain verifies by draft-layer-skip, not by the target",
    ),
    "a copy in fewer bits that verifies": (
        lambda m: m["recipes"][0].update(verify=["draft-quantized-self-draft"]),
        "verifies by draft-quantized-self-draft, not by the target",
    ),
    "another model that verifies": (lambda m: m["recipes"][0].update(verify=["assistant-draft"]), "not by the target"),
    "an engine with one row that verifies": (lambda m: m["recipes"][0].update(verify=["prefill"]), "not by the target"),
    "a context beyond the cache": (lambda m: m["model"].update(context=10**4), "slots after 9999 rows do not fit in"),
    "a context that fills the cache": (lambda m: m["model"].update(context=384), "do not fit in 384"),
    "a tree without end": (
        lambda m: engine(m)["block"].update(topology={"parents": list(range(-1, 5000))}),
        "a tree of 5001 slots; give it 4096 at most",
    ),
    "a recipe without engines": (lambda m: m["recipes"][0].update(verify=[]), "names no engine to verify with"),
    "an escape in a name": (lambda m: m["model"].update(source="\x1b[31mred"), r"'\x1b[31mred' has characters that"),
    "an escape in a file": (lambda m: m["files"].update({"a\x1b": {"bytes": 1, "sha256": ""}}), "cannot be printed"),
    "a NUL in a file": (lambda m: m["files"].update({"a\0": {"bytes": 1, "sha256": ""}}), "cannot be printed"),
    "a surrogate in a file": (lambda m: m["files"].update({"\ud800": {"bytes": 1, "sha256": ""}}), "be printed"),
    "an escape in a key of extra": (lambda m: m.update(extra={"\x1b": 1}), "cannot be printed"),
    "an escape deep in extra": (lambda m: m.update(extra={"a": [{"b": "\u202e"}]}), "cannot be printed"),
    "an escape in an unknown field": (lambda m: m.update({"\x1b": 1}), "cannot be printed"),
    "lists in lists": (lambda m: m.update(extra={"a": nested(60)}), "nested more than 32 deep"),
    "a tolerance that admits anything": (lambda m: m.update(near_tie_tolerance=0.5), "near_tie_tolerance is 0.5"),
    "a tolerance below zero": (lambda m: m.update(near_tie_tolerance=-1.0), "near_tie_tolerance is -1"),
    "a tolerance that no float can hold": (lambda m: m.update(near_tie_tolerance=10**400), "is not a finite number"),
    "a tolerance without end": (lambda m: m.update(near_tie_tolerance=float("inf")), "is not a finite number"),
    "a tolerance that is no number": (lambda m: m.update(near_tie_tolerance=float("nan")), "is not a finite number"),
}


WEIGHT_EDITS: dict[str, tuple[Edit, str]] = {
    "an input that nothing fills": (
        lambda m: engine(m)["inputs"].append({"name": "bias", "dtype": "float32", "shape": [4]}),
        "engine decode: 'bias' is no weight, and nothing else fills it",
    ),
    "a weight that is no input": (
        lambda m: engine(m).update(weight_inputs={"bias": "model.bias"}),
        "engine decode: 'bias' is no input that a weight can fill",
    ),
    "a weight in the place of the host's input": (
        lambda m: engine(m).update(weight_inputs={"past_len": "model.bias"}),
        "engine decode: 'past_len' is no input that a weight can fill",
    ),
    "a weight in the place of the cache": (
        lambda m: engine(m).update(weight_inputs={"past_key_values.0.key": "model.bias"}),
        "engine decode: 'past_key_values.0.key' is no input that a weight can fill",
    ),
}


@pytest.mark.parametrize(("edit", "named"), WEIGHT_EDITS.values(), ids=WEIGHT_EDITS)
def test_an_input_that_is_not_filled_once_is_refused(edit: Edit, named: str, tmp_path: Path) -> None:
    """Schema 1 does not say which inputs are weights."""
    with pytest.raises(BundleError, match=re.escape(f"manifest: {named}; compile the bundle again")):
        open_bundle(edit_manifest(copied(NEWEST, tmp_path), edit))


def resize(name: str, place: str, tensor_name: str, size: int) -> Edit:
    """Return an edit of the last size of a tensor."""
    return lambda m: next(t for t in engine(m, name)[place] if t["name"] == tensor_name)["shape"].__setitem__(-1, size)


HEAD_EDITS: dict[str, tuple[Edit, str]] = {
    "states of another size": (
        resize("eagle3-draft", "inputs", "state", 7),
        "engine eagle3-draft reads states of [7, 48] numbers, and the target's engines return 'state_eagle3' of [48]",
    ),
    "a next state of another size": (resize("eagle3-feed", "outputs", "next_state", 7), "reads states of [7, 48]"),
    "a target that returns another size": (resize("decode", "outputs", "state_medusa", 7), "'state_medusa' of [7, 48]"),
    "a state for another number of slots": (
        lambda m: next(t for t in engine(m, "eagle3-feed")["inputs"] if t["name"] == "state").update(shape=[1, 1, 48]),
        "engine eagle3-feed: input 'state' is not [1, 5, 'any']",
    ),
    "an unknown input of a block": (
        lambda m: engine(m, "eagle3-draft")["block"].update(inputs=["taps"]),
        "unknown input 'taps'; a block can read state",
    ),
    "guesses in two more dimensions": (
        lambda m: next(t for t in engine(m, "medusa-draft")["outputs"] if t["name"] == "top_ids").update(
            shape=[1, 1, 3, 1, 8]
        ),
        "engine medusa-draft: output 'top_ids' is not [1, 1, 8]",
    ),
}


@pytest.mark.parametrize(("edit", "named"), HEAD_EDITS.values(), ids=HEAD_EDITS)
def test_a_head_that_does_not_fit_its_target_is_refused(edit: Edit, named: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=re.escape(named)):
        open_bundle(edit_manifest(copied(NEWEST, tmp_path), edit))


def test_an_input_that_is_a_weight_is_accepted(tmp_path: Path) -> None:
    def edit(manifest: dict[str, Any]) -> None:
        engine(manifest)["inputs"].append({"name": "bias", "dtype": "float32", "shape": [4]})
        engine(manifest)["weight_inputs"] = {"bias": "model.bias"}

    opened = open_bundle(edit_manifest(copied(NEWEST, tmp_path), edit))
    assert opened.engine("decode").weight_inputs == {"bias": "model.bias"}


@pytest.mark.parametrize(("edit", "named"), EDITS.values(), ids=EDITS)
def test_what_does_not_fit_is_refused_in_one_line(edit: Edit, named: str, tmp_path: Path) -> None:
    bundle = edit_manifest(copied(FROZEN, tmp_path), edit)
    with pytest.raises(BundleError) as e:
        open_bundle(bundle)
    assert named in str(e.value) and str(e.value).isprintable()


@pytest.mark.parametrize("depth", [400, 100_000])
def test_a_manifest_that_is_nested_without_end_is_refused(tmp_path: Path, depth: int) -> None:
    bundle = copied(FROZEN, tmp_path)
    data = json.loads((bundle / "manifest.json").read_text())
    text = json.dumps({**data, "extra": {"deep": 0}}).replace('"deep": 0', f'"deep": {"[" * depth}{"]" * depth}')
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"nested more than 32 deep|cannot be read"):
        open_bundle(bundle)


def test_a_quantised_target_may_have_a_wider_tolerance(tmp_path: Path) -> None:
    def quantise(manifest: dict[str, Any]) -> None:
        verify = {name for recipe in manifest["recipes"] for name in recipe["verify"]}
        for each in manifest["engines"]:
            if each["name"] in {"decode", *verify}:
                each["block"].update(weights="int4")
        manifest.update(near_tie_tolerance=0.1)

    assert open_bundle(edit_manifest(copied(FROZEN, tmp_path), quantise)).manifest.near_tie_tolerance == 0.1


@pytest.mark.parametrize(("recipe", "named"), [("prompt-lookup", "verify-chain-12"), ("plain", "decode")])
def test_a_recipe_whose_engines_return_no_logits_is_refused_where_they_are_needed(recipe: str, named: str) -> None:
    manifest = open_bundle(FROZEN).manifest
    by_name = {r.name: r for r in manifest.recipes}
    check_logits(manifest, by_name[recipe])
    engines = tuple(
        replace(e, block=replace(e.block, outputs=("ids",))) if e.name == named else e for e in manifest.engines
    )
    less = replace(manifest, engines=engines)
    message = (
        f"recipe {recipe}: engine {named} returns no logits, which sampling and processors need; "
        "decode greedily without processors, or take a recipe that has them, such as plain"
    )
    with pytest.raises(RecipeError, match=f"^{message}$"):
        check_logits(less, by_name[recipe])
    other = by_name["early-exit"]
    if named != "decode":
        check_logits(less, other)
