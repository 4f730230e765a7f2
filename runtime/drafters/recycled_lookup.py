"""Prompt lookup that goes on with recycled answers (Saxena 2023; Token Recycling, Luo et al. 2024, arXiv:2408.08696).

Verify answers in every slot, accepted or not. The table keeps the last answer after each n-gram that led to one, where
Token Recycling keeps several after each token. From the end of the copy, or from the pending token where the text
knows nothing, a chain follows the table as far as it leads.
"""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from .prompt_lookup import PromptLookup

MOST = 1 << 17  # n-grams kept: 20 MB or so; then all are forgotten


class RecycledLookup(PromptLookup):
    """The table's n-grams have `max_matching_ngram_size` tokens."""

    def __init__(self, prompt_lookup_num_tokens: int = 11, max_matching_ngram_size: int = 3) -> None:
        super().__init__(prompt_lookup_num_tokens, max_matching_ngram_size)
        self.answers: dict[tuple[int, ...], int] = {}

    def propose(self, seq: Sequence) -> Draft:
        before, most = seq.tokens[-self.longest :], min(self.count, seq.room)
        drafted = self.after(seq.tokens)[:most]
        while len(drafted) < most:
            answer = self.answers.get(tuple([*before, *drafted][-self.longest :]))
            if answer is None:
                break
            drafted.append(answer)
        return Draft.chain([seq.pending, *drafted])

    def observe(self, seq: Sequence, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        if len(self.answers) > MOST:
            self.answers.clear()
        pending = len(seq.tokens) - len(accepted.slots) - 1
        before = seq.tokens[max(0, pending - self.longest + 1) : pending]
        tokens, answers = [*before, *draft.tokens], verified.outputs.ids_N
        for end in range(self.longest, len(tokens) + 1):
            self.answers[tuple(tokens[end - self.longest : end])] = answers[end - 1 - len(before)]
