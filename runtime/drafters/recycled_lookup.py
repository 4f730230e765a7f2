"""Prompt lookup that goes on with recycled answers (Saxena 2023; Token Recycling, Luo et al. 2024, arXiv:2408.08696).

Verify answers in every slot, accepted or not. The table keeps the last answer after each n-gram that led to one, where
Token Recycling keeps several after each token. From the end of the copy, or from the pending token where the text
knows nothing, a chain follows the table through answers that came several times in a row.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from .prompt_lookup import PromptLookup

MOST = 1 << 17  # n-grams kept: 30 MB or so; then all are forgotten


class RecycledLookup(PromptLookup):
    """min_repeats: how often in a row an answer must have come to be drafted."""

    def __init__(
        self, prompt_lookup_num_tokens: int = 11, max_matching_ngram_size: int = 3, min_repeats: int = 2
    ) -> None:
        super().__init__(prompt_lookup_num_tokens, max_matching_ngram_size)
        self.repeats = min_repeats
        self.answers: dict[tuple[int, ...], tuple[int, int]] = {}  # n-gram -> the last answer, how often in a row

    def propose(self, seq: Sequence) -> Draft:
        tokens = [*seq.tokens[-self.longest :], *self.after(seq.tokens)]
        start = min(self.longest, len(seq.tokens))
        while len(tokens) - start < self.count:
            answer, times = self._answer(tokens)
            if times < self.repeats:
                break
            tokens.append(answer)
        return Draft.chain(tokens[start - 1 :])

    def observe(self, seq: Sequence, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        if len(self.answers) > MOST:
            self.answers.clear()
        pending = len(seq.tokens) - len(accepted.slots) - 1
        before = seq.tokens[max(0, pending - self.longest + 1) : pending]
        tokens = [*before, *draft.tokens]
        for end, answer in enumerate(verified.outputs.ids_N[: len(draft.tokens)], len(before) + 1):
            for size in range(1, min(self.longest, end) + 1):
                ngram = tuple(tokens[end - size : end])
                last, times = self.answers.get(ngram, (answer, 0))
                self.answers[ngram] = answer, times + 1 if answer == last else 1

    def _answer(self, tokens: Tokens[int]) -> tuple[int, int]:
        """After the longest n-gram at the end of `tokens` that has one; (0, 0) if none has."""
        for size in range(min(self.longest, len(tokens)), 0, -1):
            if found := self.answers.get(tuple(tokens[-size:])):
                return found
        return 0, 0
