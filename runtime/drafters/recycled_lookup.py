"""Prompt lookup that continues with recycled answers.

Prompt lookup: Saxena 2023. Token Recycling: Luo et al. 2024, arXiv:2408.08696.
"""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from .prompt_lookup import PromptLookup

MAX_ANSWERS = 1 << 17  # N-grams in the table, about 20 MB. A larger table is cleared.


class RecycledLookup(PromptLookup):
    """A drafter that copies from the text, and continues with what the target last answered after the same tokens.

    The target answers in each slot, accepted or not. A table keeps its last answer after each n-gram of
    `max_matching_ngram_size` tokens. (Token Recycling keeps several answers after each single token.) A chain follows
    this table from the end of the copy, or from the pending token if there is nothing to copy.
    """

    def __init__(self, prompt_lookup_num_tokens: int = 11, max_matching_ngram_size: int = 3) -> None:
        """Make an empty index and an empty table.

        Args:
            prompt_lookup_num_tokens: tokens copied or recycled at most.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up, and of all n-grams of the table.
        """
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
        if len(self.answers) > MAX_ANSWERS:
            self.answers.clear()
        pending = len(seq.tokens) - len(accepted.slots) - 1
        before = seq.tokens[max(0, pending - self.longest + 1) : pending]
        tokens, answers = [*before, *draft.tokens], verified.outputs.ids_N
        for end in range(self.longest, len(tokens) + 1):
            self.answers[tuple(tokens[end - self.longest : end])] = answers[end - 1 - len(before)]
