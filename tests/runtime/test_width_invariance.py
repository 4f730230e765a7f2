"""Which recipes are lossless, and which are only near plain decoding."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specc.runtime.block import Block
from specc.runtime.manifest import EngineSpec, Manifest, ModelSpec
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree
from specc.runtime.width_invariance import WidthInvariance, changed_share, exactness, is_near, is_width_invariant

PLAIN = Recipe(name="plain", drafter="plain", verify=("decode",))
LOOKUP = Recipe(name="prompt-lookup", drafter="prompt-lookup", verify=("decode", "wide"))
TREE = Recipe(name="tree", drafter="early-exit", verify=("tree",))
MEASURED = WidthInvariance(
    backend="onnx", holds=False, difference=0.7, changed=0.021, tokens=96, slots=(4, 6), slots_agree=True
)


def engine(name: str, tree: Tree, weights: str, backend: str) -> EngineSpec:
    return EngineSpec(
        name=name,
        backend=backend,
        file="f",
        block=Block(tree, weights=weights),
        layers=(),
        inputs=(),
        outputs=(),
        passes=(),
    )


def manifest(weights: str = "fp32", measured: WidthInvariance | None = None) -> Manifest:
    """Make a manifest whose engines by onnx have these weights, and those by another backend fp16 ones."""
    model = ModelSpec(
        source="toy", revision="main", architecture="Toy", vocab_size=8, layers=1, context=9, eos_token_ids=()
    )
    trees = {"decode": Tree.chain(1), "wide": Tree.chain(6), "tree": Tree((-1, 0, 0))}
    engines = [engine(n, t, w, b) for b, w in (("onnx", weights), ("tensorrt", "fp16")) for n, t in trees.items()]
    return Manifest(
        schema=1,
        model=model,
        engines=tuple(engines),
        caches={},
        recipes=(PLAIN, LOOKUP, TREE),
        default_recipe="plain",
        versions={},
        files={},
        width_invariance=measured,
    )


@pytest.mark.parametrize("recipe", [LOOKUP, TREE], ids=lambda r: r.name)
def test_what_was_measured_decides(recipe: Recipe) -> None:
    for weights in ("fp32", "int4"):
        assert is_near(manifest(weights, MEASURED), recipe)
        assert not is_near(manifest(weights, replace(MEASURED, holds=True)), recipe)


@pytest.mark.parametrize(("weights", "near"), [("fp32", False), ("fp16", True), ("int8", True), ("int4", True)])
def test_where_nothing_was_measured_only_fp32_counts_as_invariant(weights: str, near: bool) -> None:
    assert is_near(manifest(weights), LOOKUP) is near


def test_plain_decoding_is_never_near() -> None:
    assert not is_near(manifest("int4", MEASURED), PLAIN)
    assert exactness(manifest("int4", MEASURED), PLAIN) == "yes"


def test_what_was_measured_by_one_backend_says_nothing_of_another() -> None:
    measured = replace(MEASURED, holds=True)
    assert not is_near(manifest("int4", measured), LOOKUP, "onnx")
    assert is_near(manifest("int4", measured), LOOKUP, "tensorrt")
    assert not is_near(manifest("fp32"), LOOKUP) and is_near(manifest("fp32"), LOOKUP, "tensorrt")


def test_tables_say_near_with_the_measured_share() -> None:
    assert exactness(manifest("int4", MEASURED), LOOKUP) == "near, 2.1% differ"
    assert exactness(manifest("int4"), LOOKUP) == "near"
    assert exactness(manifest("int4", replace(MEASURED, changed=0.0)), LOOKUP) == "near"
    assert exactness(manifest("fp32"), LOOKUP) == "yes"
    assert exactness(manifest("fp32"), replace(LOOKUP, lossless=False)) == "no"
    assert changed_share(manifest("int4", MEASURED), LOOKUP) == 0.021
    assert changed_share(manifest("int4", MEASURED), PLAIN) is None and changed_share(manifest("int4"), LOOKUP) is None


@pytest.mark.parametrize(("weights", "agree"), [("fp32", True), ("int4", False)])
def test_rows_agree_where_widths_do(weights: str, agree: bool) -> None:
    assert is_width_invariant(manifest(weights), "onnx") is agree
    assert not is_width_invariant(manifest(weights), "tensorrt")
    assert not is_width_invariant(manifest(weights, MEASURED), "onnx")
    assert is_width_invariant(manifest(weights, replace(MEASURED, holds=True)), "onnx")
    assert is_width_invariant(manifest(weights, replace(MEASURED, backend="tensorrt")), "onnx") is agree
