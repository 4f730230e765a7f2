"""Recipes with other values of a parameter."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from doubles.toy_bundle import write_bundle
from toys import VOCABULARY, corpus

from specc.bench.variants import UnloadedEngine, check_parameters, with_variants
from specc.recipes import METHODS
from specc.recipes.engines import USUAL, any_facts, plan_for_any
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.errors import RecipeError, SpeccError
from specc.runtime.manifest import Manifest
from specc.runtime.method import load_acceptance, load_drafter


@pytest.fixture
def toys(tmp_path: Path) -> Bundle:
    write_bundle(tmp_path / "all.specc")
    return open_bundle(tmp_path / "all.specc")


@pytest.fixture
def manifest(toys: Bundle) -> Manifest:
    return toys.manifest


def test_each_value_is_a_recipe_of_its_own(manifest: Manifest) -> None:
    changed, names = with_variants(manifest, ["rapid.eta=0, 2.5", "jacobi.num_speculative_tokens=2"])
    assert names == ["rapid eta=0", "rapid eta=2.5", "jacobi num_speculative_tokens=2"]
    recipes = {recipe.name: recipe for recipe in changed.recipes}
    assert recipes["rapid eta=2.5"].rule_parameters == {**recipes["rapid"].rule_parameters, "eta": 2.5}
    assert recipes["rapid eta=2.5"].parameters == recipes["rapid"].parameters
    assert recipes["jacobi num_speculative_tokens=2"].parameters["num_speculative_tokens"] == 2
    assert with_variants(manifest, []) == (manifest, [])
    twice = with_variants(manifest, ["rapid.eta=0,0, 2", "rapid.eta=2"])
    assert twice[1] == ["rapid eta=0", "rapid eta=2"] and len(twice[0].recipes) == len(manifest.recipes) + 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rapid", "is not RECIPE.PARAMETER=VALUE,VALUE; for example"),
        ("rapid.eta=", r"--vary 'rapid.eta=' has no value; write a list of numbers: 0,2,5"),
        ("rapid=2", "is not RECIPE.PARAMETER=VALUE,VALUE; for example"),
        ("rappid.eta=1", "the bundle has no recipe 'rappid'; did you mean 'rapid'"),
        ("rapid.etta=1", "recipe rapid has no parameter 'etta' to vary; did you mean 'eta'"),
        ("rapid.eta=x()", r"'\[x\(\)\]' is not a Python literal; write a list of numbers: 0,2,5"),
        (f"rapid.eta=0x{'f' * 5000}", "has a whole number of 20000 bits; write one of 63 bits"),
    ],
)
def test_what_cannot_be_varied_is_one_line(setting: str, message: str, manifest: Manifest) -> None:
    with pytest.raises(RecipeError, match=message):
        with_variants(manifest, [setting])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "jacobi.num_speculative_tokens=2,-1",
            "recipe jacobi num_speculative_tokens=-1: num_speculative_tokens is -1; ",
        ),
        ("rapid.eta=-1", "eta of acceptance enriched is -1; give 0 to 100"),
        (
            "layer-skip.assistant_confidence_threshold=7",
            "assistant_confidence_threshold is 7; give a number from 0 to 1",
        ),
        (
            "jacobi.num_speculative_tokens=50",
            "num_speculative_tokens is 50, and the engines of the bundle verify 5 drafted tokens; give 5 at most, or ",
        ),
    ],
)
def test_a_value_out_of_range_is_refused_without_an_engine(setting: str, message: str, toys: Bundle) -> None:
    changed, names = with_variants(toys.manifest, [setting])
    bundle = replace(toys, manifest=changed)
    with pytest.raises(RecipeError, match=re.escape(message)):
        for name in names:
            check_parameters(bundle, bundle.recipe(name))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1", "recipe early-exit: tree is 1; give a list of paths, such as [(0,), (1,)]"),
        ("'ab'", "recipe early-exit: tree is 'ab'; give a list of paths, such as [(0,), (1,)]"),
        ("[(1,)]", "recipe early-exit: tree: not a tree: path [1] needs path [0]; add it"),
        (
            "[(0,), (1,)]",
            "recipe early-exit tree=[(0,), (1,)]: no engine of the bundle verifies this tree; give a part of the tree "
            "that the bundle has, or compile again with --set",
        ),
    ],
)
def test_a_tree_that_cannot_be_varied_is_refused_without_an_engine(value: str, message: str, toys: Bundle) -> None:
    with pytest.raises(SpeccError) as e:
        changed, names = with_variants(toys.manifest, [f"early-exit.tree={value}"])
        bundle = replace(toys, manifest=changed)
        check_parameters(bundle, bundle.recipe(names[0]))
    assert str(e.value) == message


def test_a_tree_is_varied_by_paths_as_compile_takes_them(toys: Bundle) -> None:
    changed, (name,) = with_variants(toys.manifest, ["early-exit.tree=[(0,), (0, 0)]"])
    bundle = replace(toys, manifest=changed)
    assert bundle.recipe(name).parameters["tree"] == (-1, 0, 1)
    check_parameters(bundle, bundle.recipe(name))


def test_the_parameters_of_every_recipe_of_a_bundle_are_in_range(toys: Bundle) -> None:
    assert len(toys.manifest.recipes) > 20
    for recipe in toys.manifest.recipes:
        check_parameters(toys, recipe)


@pytest.mark.parametrize("name", METHODS)
def test_every_drafter_can_be_made_over_engines_that_are_not_loaded(name: str, tmp_path: Path) -> None:
    """Else the check would refuse values that are right."""
    m = METHODS[name]
    blocks = plan_for_any(partial(m.plan, m.settle({})), [USUAL, *any_facts(m)])
    engines = {role: UnloadedEngine(role, block) for role, block in blocks.engines.items()}
    drafter, rule = load_drafter(m.drafter), load_acceptance(m.acceptance)
    files = dict.fromkeys(set(drafter.files) & blocks.arguments.keys(), corpus(VOCABULARY))
    options = {"sample": True} if rule.needs_draft_probs else {}
    assert drafter(**engines, **{**blocks.arguments, **files}, **options)
