"""Combs: a chain of likeliest tokens with siblings that are never extended.

SWIFT (Xia et al. 2025, arXiv:2410.06916); CaPE, of "GliDe with a CaPE" (Du et al. 2024, arXiv:2402.02082).
"""

from __future__ import annotations

from collections.abc import Sequence as Items

from ..call import Call
from ..draft import ONE_SLOT, Draft
from ..engine import Engine, extending
from ..errors import RecipeError
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, Drafting, Proposal, check_counts, check_probability

Siblings = Items[tuple[float, int]]


class Comb(Drafter):
    """A drafter of combs. The less sure the draft is at a place, the more tokens it proposes there.

    The draft's engine runs the likeliest tokens alone, so the siblings cost no further call of it.
    """

    def __init__(
        self,
        draft: Engine,
        siblings: Siblings,
        prefill: Engine | None = None,
        num_speculative_tokens: int = 31,
        max_depth: int = 8,
        assistant_confidence_threshold: float = 0.0,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: an engine of one slot. Without `prefill` it runs over the target's cache.
            siblings: pairs of a probability and a count, from the largest probability to 0: the first pair whose
                probability is below that of the likeliest token says how many tokens stand beside each other there.
            prefill: an engine that fills the draft's own cache with the prompt.
            num_speculative_tokens: nodes below the pending token at most.
            max_depth: tokens of the chain at most.
            assistant_confidence_threshold: drafting stops after a token to which the draft gave a smaller probability.

        Raises:
            RecipeError: a parameter is out of range.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens, max_depth=max_depth)
        check_probability(assistant_confidence_threshold=assistant_confidence_threshold)
        self.engine, self.prefill, self.siblings = draft, prefill, check_siblings(siblings)
        self.nodes, self.depth, self.threshold = num_speculative_tokens, max_depth, assistant_confidence_threshold

    def open(self, seq: Sequence) -> CombDrafting:
        return CombDrafting(self, seq)

    def width(self, probability: float) -> int:
        """Return how many tokens to propose where the likeliest one has this probability."""
        return next((count for bound, count in self.siblings if probability > bound), self.siblings[-1][1])


def check_siblings(siblings: Siblings) -> Siblings:
    """Check pairs of a probability and a count, which a manifest gives.

    Raises:
        RecipeError: they are not pairs, a number is out of range, or the probabilities do not fall to 0.
    """
    pairs = siblings if isinstance(siblings, (list, tuple)) else ()
    if not pairs or not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
        raise RecipeError(f"siblings is {siblings!r}; give pairs of a probability and a count: [[0.8, 1], [0, 3]]")
    for bound, count in pairs:
        check_probability(**{"a probability of siblings": bound})
        check_counts(**{"a count of siblings": count})
    bounds = [bound for bound, _ in pairs]
    if bounds[-1] != 0 or sorted(set(bounds), reverse=True) != bounds:
        raise RecipeError(f"siblings has the probabilities {bounds}; give falling ones, of which the last is 0")
    return [(bound, count) for bound, count in pairs]


class CombDrafting(Drafting[Comb]):
    """The combs of one request, and the draft's rows of its text."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        cache = seq.caches[drafter.engine.block.cache]
        if drafter.prefill is not None:
            feed = cache.sync(seq.tokens[:-1])
            yield from extending(drafter.prefill if len(feed) > 1 else drafter.engine, cache, feed)
        tokens, parents, chain = [seq.pending], [-1], [0]
        most = min(drafter.depth, room, cache.store.capacity - len(seq.tokens) - 1)
        while len(chain) <= most and len(tokens) <= drafter.nodes:
            end = chain[-1]
            outputs = yield Call(drafter.engine, cache, len(chain) - 1, [tokens[end]], ONE_SLOT)
            ids, probs = outputs.top(0)
            chain.append(len(tokens))
            for token in ids[: min(drafter.width(float(probs[0])), 1 + drafter.nodes - len(tokens))].tolist():
                tokens.append(token)
                parents.append(end)
            if probs[0] < drafter.threshold:
                break
        if drafter.prefill is not None:
            cache.commit([tokens[slot] for slot in chain], range(len(chain) - 1))
        return Draft(tuple(tokens), Tree(tuple(parents)))
