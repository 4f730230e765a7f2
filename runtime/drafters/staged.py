"""Staged Speculative Decoding (Spector & Re 2023, arXiv:2308.04623): the drafter's engine has a drafter itself."""

from __future__ import annotations

from ..call import Call
from ..draft import Draft
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, Drafting, Proposal, check_counts
from .prompt_lookup import NgramIndex


class Staged(Drafter):
    """A drafter of chains by a cheap copy of the target, which checks prompt lookup's guesses several at a time.

    What the copy answers goes to the target. The copy reads the target's rows. Its own rows are scratch.
    """

    def __init__(
        self,
        draft: Engine,
        wide: Engine,
        num_speculative_tokens: int = 11,
        prompt_lookup_num_tokens: int = 3,
        max_matching_ngram_size: int = 3,
        min_matching_ngram_size: int = 2,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: the copy on one slot, over the target's cache.
            wide: the copy on several slots, which checks the guesses.
            num_speculative_tokens: tokens of a draft.
            prompt_lookup_num_tokens: guesses that `wide` checks in one call.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
            min_matching_ngram_size: tokens that must match before guesses are made.
        """
        check_counts(
            num_speculative_tokens=num_speculative_tokens,
            prompt_lookup_num_tokens=prompt_lookup_num_tokens,
            max_matching_ngram_size=max_matching_ngram_size,
            min_matching_ngram_size=min_matching_ngram_size,
        )
        self.engine, self.wide, self.count = draft, wide, num_speculative_tokens
        self.guesses, self.longest = prompt_lookup_num_tokens, max_matching_ngram_size
        self.shortest = min_matching_ngram_size

    def open(self, seq: Sequence) -> StagedDrafting:
        return StagedDrafting(self, seq)


class StagedDrafting(Drafting[Staged]):
    """The index of one request's text, and calls over its cache."""

    def __init__(self, drafter: Staged, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.index = NgramIndex(seq.tokens, drafter.longest)

    def propose(self, room: int) -> Proposal:
        drafter, cache = self.drafter, self.seq.cache
        tokens, count = [self.seq.pending], min(drafter.count, room)
        # The last scratch row from which all slots of `wide` fit.
        last_start = cache.store.capacity - drafter.wide.slots - len(cache)
        while (missing := count + 1 - len(tokens)) > 0:
            start = len(tokens) - 1
            # A call costs the same whatever its slots hold, so a match of any length fills all of them.
            most = min(drafter.guesses, missing - 1) if start <= last_start else 0
            guesses = self.index.after(most, tokens[1:], drafter.shortest, whole=True)
            chain = [tokens[-1], *guesses]
            engine = drafter.wide if guesses else drafter.engine
            outputs = yield Call(engine, cache, start, chain, Tree.chain(len(chain)))
            answers = outputs.ids_N
            for slot, guess in enumerate([*guesses, None]):
                tokens.append(answers[slot])
                if answers[slot] != guess:
                    break
        return Draft.chain(tokens)
