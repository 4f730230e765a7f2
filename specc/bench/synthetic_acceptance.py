"""Acceptance by decree: what a draft of a given quality would earn, whatever it drafts and whatever the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from specc.runtime.acceptance import Acceptance
from specc.runtime.draft import Accepted, Draft, Verified
from specc.runtime.errors import RecipeError
from specc.runtime.manifest import Manifest


def synthetic(rates: Sequence[float]) -> Acceptance:
    """A rule that walks down a draft's first children and accepts the one at depth d with the probability `rates[d-1]`.

    That is given that those above it were accepted; below the last rate the last rate holds. The target chooses the
    token after the last one accepted. The text is not the model's own, and a draft of nothing earns nothing.
    Raises RecipeError for what is no probability.
    """
    if not rates or not all(0 <= rate <= 1 for rate in rates):
        raise RecipeError(f"acceptance rates {', '.join(map(str, rates)) or 'of nothing'}; give numbers in 0..1")

    def decreed(draft: Draft, verified: Verified) -> Accepted:
        slots = [0]
        while below := draft.tree.children[slots[-1]]:
            if not verified.sampling.rng.bernoulli(rates[min(len(slots), len(rates)) - 1]):
                break
            slots.append(below[0])
        return Accepted(tuple(slots), verified.choose(slots[-1]))

    return decreed


def undoubting(manifest: Manifest) -> Manifest:
    """The same recipes with drafts as long as they may be: how sure a draft of random weights is says nothing."""
    name = "assistant_confidence_threshold"
    sure = (replace(r, parameters={**r.parameters, name: 0.0}) if name in r.parameters else r for r in manifest.recipes)
    return replace(manifest, recipes=tuple(sure))


def read_rates(text: str) -> tuple[float, ...]:
    """The rates that a user writes as `0.8,0.6`. Raises RecipeError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(f"acceptance rates {text!r}; write numbers in 0..1, as in 0.8,0.6") from None
