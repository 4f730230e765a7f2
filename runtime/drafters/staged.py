"""Staged Speculative Decoding (Spector & Re 2023, arXiv:2308.04623): the drafter's engine has a drafter itself."""

from __future__ import annotations

from ..call import Call
from ..draft import Draft
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter
from .prompt_lookup import PromptLookup


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
        """Make an empty index.

        Args:
            draft: the copy on one slot, over the target's cache.
            wide: the copy on several slots, which checks the guesses.
            num_speculative_tokens: tokens of a draft.
            prompt_lookup_num_tokens: guesses that `wide` checks in one call.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
            min_matching_ngram_size: tokens that must match before guesses are made.
        """
        self.engine, self.wide, self.count = draft, wide, num_speculative_tokens
        self.guesses, self.shortest = prompt_lookup_num_tokens, min_matching_ngram_size
        self.lookup = PromptLookup(self.guesses, max_matching_ngram_size)

    def propose(self, seq: Sequence) -> Draft:
        rows, tokens, count = len(seq.cache), [seq.pending], min(self.count, seq.room)
        last_start = self.wide.store.capacity - self.wide.slots  # The last row from which all slots of `wide` fit.
        while (missing := count + 1 - len(tokens)) > 0:
            start = rows + len(tokens) - 1
            # A call costs the same whatever its slots hold, so a match of any length fills all of them.
            most = min(self.guesses, missing - 1) if start <= last_start else 0
            guesses = self.lookup.after(seq.tokens, tokens[1:], self.shortest, most)
            engine = self.wide if guesses else self.engine
            fed = [tokens[-1], *guesses]
            answers = Call(engine, seq.cache, len(tokens) - 1, fed, Tree.chain(len(fed))).run().ids_N
            for slot, guess in enumerate([*guesses, None]):
                tokens.append(answers[slot])
                if answers[slot] != guess:
                    break
        return Draft.chain(tokens)
