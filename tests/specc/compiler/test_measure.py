"""What follows once the engines are built: which steps run, and whether other trees are compiled."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from doubles.tune_plan import tune_plan

from specc.compiler import measure
from specc.compiler.measure import measure_recipes, with_better_trees
from specc.compiler.options import Options
from specc.compiler.stages import Stages
from specc.exactness import self_reference
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.errors import BackendError
from specc.tuning import default_recipe, tune
from specc.tuning.plan import TreeProposal

pytestmark = pytest.mark.torch

FROZEN = Path(__file__).parents[2] / "bundles" / "schema-1"
STAGES = Stages(lambda title, done, total: None, {"measure": 1.0, "tune": 1.0})


def options(**changes: Any) -> Options:
    return Options(model="model", output="out", **changes)


@pytest.mark.parametrize(
    ("changes", "modules"),
    [
        ({}, [default_recipe]),
        ({"tune": True}, [default_recipe, tune]),
        ({"dtype": "bf16"}, [default_recipe]),
        ({"dtype": "bf16", "text": "book.txt"}, [self_reference, default_recipe]),
        ({"dtype": "int4", "tune": True}, [self_reference, default_recipe, tune]),
        ({"dtype": "int8", "text": "book.txt"}, [self_reference, default_recipe]),
    ],
)
def test_the_steps_run_in_order(
    changes: dict[str, Any], modules: list[ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs: list[tuple[ModuleType, tuple[str, ...]]] = []
    monkeypatch.setattr(measure, "run_module", lambda module, *argv, **_: runs.append((module, argv)))
    measure_recipes(tmp_path, options(**changes), STAGES, is_rounded=self_reference in modules)
    assert [module for module, _ in runs] == modules
    assert all(argv[0] == str(tmp_path) for _, argv in runs)
    assert [argv[1:] for module, argv in runs if module is self_reference] in (
        [],
        [("book.txt",)] if "text" in changes else [()],
    )


def test_the_measurement_is_told_whether_the_graphs_amplify_last_bits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs: list[tuple[str, ...]] = []
    monkeypatch.setattr(measure, "run_module", lambda module, *argv, **_: runs.append(argv[1:]))
    bundle = shutil.copytree(FROZEN, tmp_path / "frozen.specc")
    for amplified in (True, False):
        monkeypatch.setattr(measure, "target_amplifies_rounding", lambda manifest, directory, a=amplified: a)
        measure_recipes(bundle, options(), STAGES, is_rounded=False)
    assert runs == [(default_recipe.AMPLIFIED,), ()]


def test_each_recipe_is_reported_as_it_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    records: list[tuple[str, int]] = []
    stages = Stages(lambda title, done, total: records.append((title, done)), {"measure": 1.0})
    monkeypatch.setattr(measure, "run_module", lambda module, *argv, advance, **_: advance("3 4 the fastest in turns"))
    measure_recipes(tmp_path, options(), stages, is_rounded=False)
    assert records == [("measure the recipes", 0), ("measure the recipes · the fastest in turns, 4 of 4", 750)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "int4"}, "cannot decode the golden prompts with the quantised weights on this machine: .*no bundle"),
        ({}, "cannot measure the recipes on this machine: .*no bundle"),
    ],
)
def test_a_step_that_fails_says_which_it_is(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=message):
        measure_recipes(tmp_path / "none", options(**changes), STAGES, is_rounded="dtype" in changes)


def test_a_failure_of_tuning_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(measure, "default_recipe", ModuleType("this"))  # prints a poem, and succeeds
    with pytest.raises(BackendError, match=r"cannot tune the recipes on this machine: .*no bundle"):
        measure_recipes(tmp_path / "none", options(tune=True), STAGES, is_rounded=False)


def bundle_with(trees: dict[str, TreeProposal] | None) -> Bundle:
    """Return a bundle with a plan that proposes these trees, or without a plan."""
    bundle = open_bundle(FROZEN)
    plain = replace(bundle.manifest, extra={})
    return replace(bundle, manifest=plain if trees is None else tune_plan(trees=trees).stored_in(plain))


TREES = {"early-exit": TreeProposal(tree=((0,), (1,)), predicted_gain=1.2)}


def test_proposed_trees_are_compiled_over_the_bundle() -> None:
    parameters = {"early-exit": {"assistant_early_exit": 2}, "jacobi": {"num_speculative_tokens": 3}}
    retuned = with_better_trees(options(parameters=parameters, tune=True), bundle_with(TREES))
    assert retuned is not None and retuned.overwrite and retuned.tune
    assert retuned.parameters == {
        "early-exit": {"assistant_early_exit": 2, "tree": ((0,), (1,))},
        "jacobi": {"num_speculative_tokens": 3},
    }
    assert parameters["early-exit"] == {"assistant_early_exit": 2}  # the user's own stay as they are


def test_a_tree_is_not_proposed_to_a_recipe_whose_tree_follows_from_other_parameters() -> None:
    trees = dict.fromkeys(("early-exit", "rsd-c"), TREES["early-exit"])
    choice = options(recipes=("rsd-c", "early-exit"), assistant_model="small")
    retuned = with_better_trees(choice, bundle_with(trees))
    assert retuned is not None and retuned.parameters.keys() == {"early-exit"}


def test_a_second_compile_is_the_last() -> None:
    """The options of the second name the trees, so that its proposals lead to no third."""
    retuned = with_better_trees(options(), bundle_with(TREES))
    assert retuned is not None
    assert with_better_trees(retuned, bundle_with(TREES)) is None


def test_without_a_proposal_or_beside_a_users_tree_nothing_is_compiled_again() -> None:
    assert with_better_trees(options(), bundle_with(None)) is None
    assert with_better_trees(options(), bundle_with({})) is None
    choice = options(parameters={"early-exit": {"tree": [(0,)]}})
    assert with_better_trees(choice, bundle_with(TREES)) is None
