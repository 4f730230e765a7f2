"""Accept drafts with fixed probabilities: what a draft of a given quality would earn, whatever it drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from specc.runtime.acceptance import Acceptance, rule
from specc.runtime.draft import Accepted, Draft, Verified
from specc.runtime.errors import RecipeError
from specc.runtime.manifest import Manifest

THRESHOLD = "assistant_confidence_threshold"  # Drafters with this parameter stop where they are unsure.


def synthetic(rates: Sequence[float]) -> Acceptance:
    """Make an acceptance rule that accepts tokens with fixed probabilities.

    The rule walks down a draft's first children. It accepts the child at depth d with probability `rates[d - 1]` if it
    accepted all above it; below the last rate, the last rate holds. It accepts no other child. The target chooses the
    token after the last accepted one. So the text is not the model's own, and an empty draft earns nothing.

    Args:
        rates: probabilities by depth.

    Raises:
        RecipeError: there is no rate, or one is outside 0..1.
    """
    if not rates or not all(0 <= rate <= 1 for rate in rates):
        numbers = ", ".join(map(str, rates)) or "none"
        raise RecipeError(f"acceptance rates: {numbers}; give one or more numbers in 0..1")

    @rule(needs_draft_probs=False)
    def accept(draft: Draft, verified: Verified) -> Accepted:
        slots = [0]
        while children := draft.tree.children[slots[-1]]:
            rate = rates[min(len(slots), len(rates)) - 1]
            if not verified.sampling.rng.bernoulli(rate):
                break
            slots.append(children[0])
        return Accepted(tuple(slots), verified.choose(slots[-1]))

    return accept


def without_doubt(manifest: Manifest) -> Manifest:
    """Return the manifest with drafters that never stop early.

    How sure a draft is says nothing about a synthetic acceptance, least of all with random weights.
    """
    return replace(
        manifest,
        recipes=tuple(
            replace(recipe, parameters={**recipe.parameters, THRESHOLD: 0.0})
            if THRESHOLD in recipe.parameters
            else recipe
            for recipe in manifest.recipes
        ),
    )


def read_rates(text: str) -> tuple[float, ...]:
    """Parse rates that are written as `0.8,0.6`.

    Raises:
        RecipeError: a part is not a number.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise RecipeError(f"acceptance rates {text!r}; write numbers in 0..1, such as 0.8,0.6") from None
