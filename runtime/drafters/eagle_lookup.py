"""A trained head together with prompt lookup: one tree for what the text says and what the head says.

EAGLE-2 (Li et al. 2024, arXiv:2406.16858); prompt lookup decoding (Saxena 2023,
github.com/apoorvumang/prompt-lookup-decoding). To fuse a retrieved tree with a drafted one by the paths they share is
RASD's idea (Quan et al. 2025, arXiv:2503.03434); to weigh both by measured chances is specc's own.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from itertools import accumulate
from operator import mul

from ..draft_candidates import Candidates
from ..engine import Engine
from ..errors import RecipeError
from ..node_budget import StepCosts
from ..sequence import Sequence
from . import check_probability
from .eagle_tree import EagleTree, EagleTreeDrafting
from .prompt_lookup import NgramIndex


class EagleLookup(EagleTree):
    """A drafter whose trees hold a copy of the text beside the head's tokens.

    The number of last tokens that occur earlier in the text is the evidence for the copy: it says how likely the text
    goes on as it did there. What is left of the chance belongs to the head. Each copied token lengthens the match, so
    the next one is likelier. Then the nodes of both are ranked together.
    """

    def __init__(
        self,
        draft: Engine,
        feed: Engine,
        prefill: Engine,
        num_speculative_tokens: int = 11,
        max_depth: int = 3,
        step_costs: StepCosts = (),
        match_rates: Items[float] = (0.15, 0.4, 0.7, 0.8, 0.85, 0.9),
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: a Frontier engine of the head.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            num_speculative_tokens: nodes below the pending token at most.
            max_depth: levels below the pending token at most that the head drafts.
            step_costs: see `NodeBudget`.
            match_rates: how often the token is right that followed the last 1, 2, … tokens where they occur earlier.
                Longer matches are not looked up, and count as the last one.
        """
        super().__init__(draft, feed, prefill, num_speculative_tokens, max_depth, step_costs)
        self.rates = check_match_rates(match_rates)

    def open(self, seq: Sequence) -> EagleLookupDrafting:
        return EagleLookupDrafting(self, seq)


class EagleLookupDrafting(EagleTreeDrafting[EagleLookup]):
    """The trees of one request, and the index of its text."""

    def __init__(self, drafter: EagleLookup, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.index = NgramIndex(seq.tokens, len(drafter.rates))

    def candidates(self, room: int) -> Candidates:
        drafter, rates = self.drafter, self.drafter.rates
        size, copy = self.index.longest_match(min(drafter.budget.nodes, room))
        chances = [rates[min(size + i, len(rates)) - 1] for i in range(len(copy))]
        head_share = 1.0 - chances[0] if chances else 1.0
        candidates = Candidates(self.seq.pending, drafter.budget, head_share)
        candidates.add_path(copy, list(accumulate(chances, mul)))
        return candidates


def check_match_rates(rates: Items[float]) -> tuple[float, ...]:
    """Return the rates of copies if they are right. A manifest gives them, which a stranger may have written.

    Raises:
        RecipeError: they are no list of 1 to 16 probabilities.
    """
    if not isinstance(rates, (list, tuple)) or not 1 <= len(rates) <= 16:
        raise RecipeError(f"match_rates is {rates!r}; give 1 to 16 probabilities, such as [0.15, 0.4, 0.7]")
    for rate in rates:
        check_probability(**{"a rate of match_rates": rate})
    return tuple(rates)
