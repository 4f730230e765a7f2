"""Whether the target gives the same tokens at every width, so that plain decoding and a wide verify agree.

Kernels round differently at different widths. The last bits of fp32 logits differ then, which matters at near-ties
only. Where activations are rounded to 8 bits, one such bit can flip a rounding, and logits differ by 1 and more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .recipe import Recipe

if TYPE_CHECKING:
    from .manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class WidthInvariance:
    """What was measured when the bundle was compiled: decode against the engines that verify, on golden text.

    Attributes:
        backend: the backend whose engines were compared.
        holds: whether no token changed but at near-ties, and no logit by more than a bound.
        difference: the largest difference of two logits.
        changed: the largest share of tokens that one engine changed.
        tokens: how many tokens were compared for each engine.
        slots: the widths of the engines that were compared.
    """

    backend: str
    holds: bool
    difference: float
    changed: float
    tokens: int
    slots: tuple[int, ...]


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
    measured = manifest.width_invariance
    if measured is not None and measured.backend == backend:
        return not measured.holds
    return any(e.block.weights != "fp32" for e in engines)


def changed_share(manifest: Manifest, recipe: Recipe) -> float | None:
    """Return the measured share of tokens that change with the width of a step, for a recipe that is near."""
    measured = manifest.width_invariance
    return measured.changed if measured is not None and is_near(manifest, recipe, measured.backend) else None


def exactness(manifest: Manifest, recipe: Recipe) -> str:
    """Return what tables say of a recipe: `yes` if it is lossless, `near` with the share of changed tokens, or `no`."""
    if not recipe.lossless:
        return "no"
    if not is_near(manifest, recipe):
        return "yes"
    share = changed_share(manifest, recipe)
    return "near" if share is None else f"near, {share:.1%} differ"
