"""What a compile does once the engines are there: measure the recipes on this machine, and choose among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from specc.backends.amplified_rounding import target_amplifies_rounding
from specc.compiler.options import Options
from specc.compiler.plans import choose_methods
from specc.compiler.separate_process import run_module
from specc.compiler.stages import Stages
from specc.exactness import self_reference
from specc.runtime.bundle import MANIFEST, Bundle
from specc.runtime.manifest_file import read_manifest
from specc.tuning import default_recipe, tune
from specc.tuning.plan import TunePlan


def measure_recipes(directory: Path, options: Options, stages: Stages, is_rounded: bool) -> None:
    """Measure the recipes and write the outcome into the manifest. Each step is a process without torch.

    Args:
        directory: the bundle.
        options: the compile's.
        stages: counts what is done.
        is_rounded: the target's weights are not the original model's, so the bundle becomes its own reference.

    Raises:
        BackendError: a step failed.
    """
    stages.begin("measure", "measure the recipes")

    def measured(line: str) -> None:
        done, count, recipe = [*line.split(" ", 2), "", ""][:3]
        if done.isdecimal() and count.isdecimal():  # A library may print lines of its own.
            stages.advance(int(done), int(count), recipe)

    if is_rounded:
        text = [str(options.text)] if options.text else []
        purpose = "decode the golden prompts with the quantised weights"
        run_module(self_reference, str(directory), *text, purpose=purpose)
    choose_default_recipe(directory, "measure the recipes", measured)
    if options.tune:
        stages.begin("tune", "tune the recipes")
        run_module(tune, str(directory), purpose="tune the recipes")


def choose_default_recipe(directory: Path, purpose: str, advance: Callable[[str], None] = lambda line: None) -> None:
    """Measure the recipes of a bundle, and choose its default, in a process without torch.

    Args:
        directory: the bundle.
        purpose: what it does, as a verb and an object, for the error message.
        advance: a function that is called with each line that the process prints.

    Raises:
        BackendError: the process failed.
    """
    file, words = directory / MANIFEST, list[str]()
    if file.is_file() and target_amplifies_rounding(read_manifest(file), directory):  # Without it, the process fails.
        words.append(default_recipe.AMPLIFIED)
    run_module(default_recipe, str(directory), *words, purpose=purpose, advance=advance)


def with_better_trees(options: Options, bundle: Bundle) -> Options | None:
    """Return options that compile the trees that `tune` proposes.

    Returns:
        None if it proposes none, or if the user chose the tree of a recipe for which it does. A recipe whose tree
        follows from other parameters keeps it.
    """
    plan = TunePlan.of(bundle.manifest)
    with_trees = {m.name for m in choose_methods(options, None) if "tree" in m.parameters}
    trees = {name: tree for name, tree in plan.trees.items() if name in with_trees} if plan else {}
    if not trees or any(options.parameters.get(name, {}).get("tree") for name in trees):
        return None
    parameters: dict[str, dict[str, Any]] = {name: dict(values) for name, values in options.parameters.items()}
    for name, proposal in trees.items():
        parameters.setdefault(name, {})["tree"] = proposal.tree
    return replace(options, parameters=parameters, overwrite=True)
