"""Prompt lookup that continues with recycled answers.

Prompt lookup: Saxena 2023. Token Recycling: Luo et al. 2024, arXiv:2408.08696.
"""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from . import Drafter, Drafting, check_counts
from .prompt_lookup import NgramIndex

MAX_ANSWERS = 1 << 17  # N-grams in the table, about 20 MB. A larger table is cleared.


class RecycledLookup(Drafter):
    """A drafter that copies from the text, and continues with what the target last answered after the same tokens.

    The target answers in each slot, accepted or not. A table keeps its last answer after each n-gram of
    `max_matching_ngram_size` tokens. (Token Recycling keeps several answers after each single token.) A chain follows
    this table from the end of the copy, or from the pending token if there is nothing to copy.
    """

    def __init__(self, prompt_lookup_num_tokens: int = 11, max_matching_ngram_size: int = 3) -> None:
        """Make an empty table.

        Args:
            prompt_lookup_num_tokens: tokens copied or recycled at most.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up, and of all n-grams of the table.
        """
        check_counts(prompt_lookup_num_tokens=prompt_lookup_num_tokens, max_matching_ngram_size=max_matching_ngram_size)
        self.count, self.longest = prompt_lookup_num_tokens, max_matching_ngram_size
        self.answers: dict[tuple[int, ...], int] = {}

    def open(self, seq: Sequence) -> RecycledLookupDrafting:
        return RecycledLookupDrafting(self, seq)


class RecycledLookupDrafting(Drafting[RecycledLookup]):
    """The index of one request's text, and its use of the table."""

    def __init__(self, drafter: RecycledLookup, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.index = NgramIndex(seq.tokens, drafter.longest)

    def draft(self, room: int) -> Draft:
        seq, longest, answers = self.seq, self.drafter.longest, self.drafter.answers
        before, most = seq.tokens[-longest:], min(self.drafter.count, room)
        drafted = self.index.after(self.drafter.count)[:most]
        while len(drafted) < most:
            answer = answers.get(tuple([*before, *drafted][-longest:]))
            if answer is None:
                break
            drafted.append(answer)
        return Draft.chain([seq.pending, *drafted])

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        seq, longest, table = self.seq, self.drafter.longest, self.drafter.answers
        if len(table) > MAX_ANSWERS:
            table.clear()
        pending = len(seq.tokens) - len(accepted.slots) - 1
        before = seq.tokens[max(0, pending - longest + 1) : pending]
        tokens, answers = [*before, *draft.tokens], verified.outputs.ids_N
        for end in range(longest, len(tokens) + 1):
            table[tuple(tokens[end - longest : end])] = answers[end - 1 - len(before)]
