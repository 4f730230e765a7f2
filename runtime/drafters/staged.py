"""Two stages of speculation (Staged Speculative Decoding, Spector & Re 2023, arXiv:2308.04623): the draft has a draft.

Prompt lookup guesses for the draft engine, which checks its guesses several at a time; what it says goes to the target.
"""

from __future__ import annotations

from ..draft import Draft
from ..engine import Engine
from ..sequence import Sequence
from .plain import Plain
from .prompt_lookup import PromptLookup


class Staged(Plain):
    """`draft` and `wide` run the same model over the target's rows, a token and several at a time; theirs are scratch.

    num_speculative_tokens: tokens a draft. prompt_lookup_num_tokens: guesses that `wide` checks in a call.
    min_matching_ngram_size: tokens that must match.
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
        self.engine, self.wide, self.count = draft, wide, num_speculative_tokens
        self.guesses, self.shortest = prompt_lookup_num_tokens, min_matching_ngram_size
        self.lookup = PromptLookup(self.guesses, max_matching_ngram_size)

    def propose(self, seq: Sequence) -> Draft:
        rows, tokens, count = len(seq.cache), [seq.pending], min(self.count, seq.room)
        last = self.wide.store.capacity - self.wide.slots  # where its slots still fit
        while (left := count + 1 - len(tokens)) > 0:
            begin = rows + len(tokens) - 1
            # a call costs the same whatever its slots hold, so all are filled after a match of any length
            most = min(self.guesses, left - 1) if begin <= last else 0
            guesses = self.lookup.after(seq.tokens, tokens[1:], self.shortest, most)
            engine = self.wide if guesses else self.engine
            said = engine.run_after(begin, [tokens[-1], *guesses]).ids_N
            for slot, guess in enumerate([*guesses, None]):
                tokens.append(said[slot])
                if said[slot] != guess:
                    break
        return Draft.chain(tokens)
