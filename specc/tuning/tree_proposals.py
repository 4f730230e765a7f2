"""Propose static trees that would be faster on this machine than the ones that a bundle was compiled with."""

from __future__ import annotations

from collections.abc import Mapping

from specc.runtime.manifest import Manifest
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree
from specc.tuning.acceptance_stats import Calibration, acceptance_rates
from specc.tuning.best_tree import Costs, best_tree, speed
from specc.tuning.job import Job
from specc.tuning.plan import TreeProposal
from specc.tuning.step_costs import StepCost


def propose_trees(
    job: Job, calibrations: Mapping[str, Calibration], costs: Mapping[str, StepCost]
) -> dict[str, TreeProposal]:
    """Propose a tree for each recipe with a static tree that could be faster by the policy's least speed-up."""
    proposals = {}
    for recipe in job.drafting:
        if "tree" in recipe.parameters:
            proposal = _better_tree(job, recipe, calibrations[recipe.name], costs)
            if proposal:
                proposals[recipe.name] = proposal
    return proposals


def _better_tree(
    job: Job, recipe: Recipe, calibration: Calibration, costs: Mapping[str, StepCost]
) -> TreeProposal | None:
    """Find the best tree by measured rates and costs.

    Returns:
        The tree, or None if it is hardly faster than the recipe's own, or if the recipe never drafted.
    """
    rates = acceptance_rates(calibration.steps).by_rank
    if not rates:
        return None
    widths = {costs[name].slots: costs[name].milliseconds for name in (*recipe.verify, *job.chains.values())}
    tree_costs, depth = Costs(widths), job.policy.tree_depth
    if "draft" in recipe.engines:
        draft, stack = costs[recipe.engines["draft"]], _stack(job.bundle.manifest, recipe.engines["draft"])
        tree_costs = Costs(widths, draft.milliseconds, 0 if stack else draft.slots)
        depth = min(depth, stack or depth)
    present = Tree(tuple(recipe.parameters["tree"]))
    better = best_tree(rates, tree_costs, depth)
    gain = speed(better, rates, tree_costs) / speed(present, rates, tree_costs)
    if gain < job.policy.least_speedup:
        return None
    return TreeProposal(tree=tuple(tuple(path) for path in better.paths), predicted_gain=round(gain, 3))


def _stack(manifest: Manifest, name: str) -> int:
    """Return how many tokens one call of an engine guesses, one after another; 0 if it guesses one from each slot."""
    shapes = [t.shape for e in manifest.engines if e.name == name for t in e.outputs if t.name == "top_ids"]
    return next((shape[2] for shape in shapes if len(shape) == 4), 0)
