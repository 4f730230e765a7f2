"""Whether the target gives the same tokens at every width, so that plain decoding and a wide verify agree.

Kernels round differently at different widths. The last bits of fp32 logits differ then, which matters at near-ties
only. Where activations are rounded to 8 bits, one such bit can flip a rounding, and logits differ by 1 and more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import RecipeError
from .recipe import Recipe
from .tree import Tree

if TYPE_CHECKING:
    from .manifest import EngineSpec, Manifest


@dataclass(frozen=True, kw_only=True)
class WidthInvariance:
    """What was measured when the bundle was compiled: decode against the engines that verify, on golden text.

    Attributes:
        backend: the backend whose engines were compared.
        holds: whether no token changed but at near-ties, no logit changed by more than a bound, and no graph rounds to
            8 bits what depends on the width.
        difference: the largest difference of two logits.
        changed: the largest share of tokens that one engine changed.
        tokens: how many tokens were compared for each engine.
        slots: the widths of the engines that were compared.
        slots_agree: whether, at one width, a token's logits have the same bits in each slot, whatever the others hold.
    """

    backend: str
    holds: bool
    difference: float
    changed: float
    tokens: int
    slots: tuple[int, ...]
    slots_agree: bool


def is_near(manifest: Manifest, recipe: Recipe, backend: str = "") -> bool:
    """Tell whether a recipe's tokens are only near those of plain decoding, since they depend on the width of a step.

    Where nothing was measured, fp32 weights count as invariant and others do not.

    Args:
        manifest: of the bundle.
        recipe: one of its recipes.
        backend: whose engines run; empty is the bundle's first backend.
    """
    backend = backend or manifest.engines[0].backend
    engines = [e for e in manifest.engines if e.backend == backend and e.name in recipe.verify]
    if all(e.block.slots == 1 for e in engines):
        return False
    return not _invariant(manifest, engines, backend)


def is_width_invariant(manifest: Manifest, backend: str) -> bool:
    """Tell whether the target gives the same tokens at every width. Then any of its engines may compute a row.

    Where nothing was measured, fp32 weights count as invariant and others do not.

    Args:
        manifest: of the bundle.
        backend: whose engines run.
    """
    names = {"prefill", *(name for recipe in manifest.recipes for name in recipe.verify)}
    return _invariant(manifest, [e for e in manifest.engines if e.backend == backend and e.name in names], backend)


def _invariant(manifest: Manifest, engines: list[EngineSpec], backend: str) -> bool:
    measured = manifest.width_invariance
    if measured is not None and measured.backend == backend:
        return measured.holds
    return all(e.block.weights == "fp32" for e in engines)


def is_lossless(manifest: Manifest, recipe: Recipe, backend: str = "") -> bool:
    """Tell whether a recipe by its own rule is lossless, over this bundle's target. See `is_near` for the arguments."""
    return recipe.lossless and not is_near(manifest, recipe, backend)


def changed_share(manifest: Manifest, recipe: Recipe) -> float | None:
    """Return the measured share of tokens that change with the width of a step, for a recipe that is near."""
    measured = manifest.width_invariance
    return measured.changed if measured is not None and is_near(manifest, recipe, measured.backend) else None


def exactness(manifest: Manifest, recipe: Recipe, backend: str = "") -> str:
    """Return what tables say of a recipe: `yes` if it is lossless, `near` with the share of changed tokens, or `no`.

    A share of 0 is left out: the text that was compared was too short to show one.

    See `is_near` for the arguments.
    """
    if not recipe.lossless:
        return "no"
    if not is_near(manifest, recipe, backend):
        return "yes"
    share = changed_share(manifest, recipe)
    return f"near, {share:.1%} differ" if share else "near"


def exact_engine(manifest: Manifest, recipe: Recipe, backend: str) -> EngineSpec | None:
    """Return the engine through which a recipe decodes if all steps must have one width: its widest chain, or None.

    A tree has none: the rows that a slot sees lie in other places than in plain decoding, and sums over them round
    differently.
    """
    engines = [e for e in manifest.engines if e.backend == backend and e.name in recipe.verify]
    if not all(isinstance(e.block.topology, Tree) and e.block.topology.is_chain for e in engines):
        return None
    widest = max(engines, key=lambda e: e.block.slots)
    return widest if widest.block.slots > 1 else None


def _verifies_trees(manifest: Manifest, recipe: Recipe) -> bool:
    topologies = [e.block.topology for e in manifest.engines if e.name in recipe.verify]
    return not all(isinstance(topology, Tree) and topology.is_chain for topology in topologies)


def one_width(manifest: Manifest, recipe: Recipe, backend: str, source: str = "") -> str:
    """Name the engine through which every step of an exact request runs: prompt, plain steps and verify.

    Args:
        manifest: of the bundle.
        recipe: the recipe of the request.
        backend: whose engines run.
        source: the recipe whose width is taken. Empty is the request's own, or for plain decoding the default's, or
            else the first one that has such an engine.

    Raises:
        RecipeError: the recipe verifies trees, no recipe verifies chains, or the slots of one width do not agree.
    """
    by_name = {r.name: r for r in manifest.recipes}
    exact = {name: engine.name for name, r in by_name.items() if (engine := exact_engine(manifest, r, backend))}
    choices = ", ".join(exact) or "none in this bundle"
    measured = manifest.width_invariance
    if measured is not None and measured.backend == backend and not measured.slots_agree:
        raise RecipeError("exact: engines of one width give other logits in other slots here; decode by recipe plain")
    is_plain = all(e.block.slots == 1 for e in manifest.engines if e.name in recipe.verify)
    sources = [source] if source else [manifest.default_recipe, *exact] if is_plain else [recipe.name]
    names = [exact[name] for name in sources if name in exact]
    if not names:
        has_trees = _verifies_trees(manifest, by_name[sources[0]])
        reason = "verifies trees" if has_trees else "has no engine of several slots"
        raise RecipeError(f"exact: recipe {sources[0]} {reason}, so it has no exact width; choose from: {choices}")
    return names[0]
