"""Trust: keep whatever was drafted. Lossy: it is what methods do that route tokens between two models."""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified
from . import rule


@rule(needs_draft_probs=True, obeys_processors=False)
def trust(draft: Draft, verified: Verified) -> Accepted:
    """Accept every token of a chain, and the first path of a tree.

    The token after them is the draft's own if the draft has logits for the last slot, chosen as the request samples.
    Otherwise the target chooses it. Answers are those of the drafter as far as it drafts. Processors see the target's
    choices alone, so requests with a grammar or a penalty are refused.
    """
    slots, children = [0], draft.tree.children
    while children[slots[-1]]:
        slots.append(children[slots[-1]][0])
    last = slots[-1]
    chooser = verified.by(draft.logits.__getitem__) if last in draft.logits else verified
    return Accepted(tuple(slots), chooser.choose(last))
