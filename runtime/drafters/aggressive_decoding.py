"""Input-guided Aggressive Decoding (Ge et al. 2022, arXiv:2205.10350; Sun et al. 2021, arXiv:2106.04970)."""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from . import Drafter, Drafting, check_counts

LONGEST_KEY = 3  # tokens; the paper looks for the last one to three tokens of the output


class AggressiveDecoding(Drafter):
    """A drafter that copies the input on and on, and resumes after a mismatch where the text agrees again.

    While the target agrees, the next draft is the continuation of the input. After a mismatch it takes plain steps,
    until the last tokens of the output occur exactly once in the input. It tries the last token alone, then the last
    two, then the last three. The copy resumes behind that place.

    The paper's model has an encoder for its input. Here the input is the prompt, whose text to copy may begin anywhere.
    So the copy does not begin with the first step, but as it resumes: after the first tokens of the answer. And a draft
    has a largest number of tokens, since engines have fixed widths: the paper appends all that is left of the input.
    """

    def __init__(self, num_speculative_tokens: int = 11) -> None:
        """Keep the parameter.

        Args:
            num_speculative_tokens: tokens copied in a step at most.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        self.count = num_speculative_tokens

    def open(self, seq: Sequence) -> AggressiveDecodingDrafting:
        return AggressiveDecodingDrafting(self, seq)


class AggressiveDecodingDrafting(Drafting[AggressiveDecoding]):
    """The input of one request, and where the copy of it stands.

    Attributes:
        next: the index in the input of the token to copy next; None after a mismatch.
    """

    next: int | None = None

    def __init__(self, drafter: AggressiveDecoding, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.input = tuple(seq.tokens)
        # Where each n-gram of the input ends; None for one that occurs more than once.
        self.end_of: dict[tuple[int, ...], int | None] = {}
        for end in range(1, len(self.input) + 1):
            for size in range(1, min(LONGEST_KEY, end) + 1):
                key = self.input[end - size : end]
                self.end_of[key] = None if key in self.end_of else end

    def draft(self, room: int) -> Draft:
        if self.next is None:
            self.next = self._resume()
        start = len(self.input) if self.next is None else self.next
        return Draft.chain([self.seq.pending, *self.input[start : start + min(self.drafter.count, room)]])

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        if self.next is not None:
            # The target's own token stands at this place of the input, if the input and the answer agree so far.
            last = self.next + len(accepted.slots) - 1
            agrees = self.input[last : last + 1] == (accepted.token,)
            self.next = last + 1 if agrees else None

    def _resume(self) -> int | None:
        """Return the end of the one place of the input that has the last tokens of the output; None without one."""
        output = self.seq.tokens[len(self.input) :]
        for size in range(1, min(LONGEST_KEY, len(output)) + 1):
            end = self.end_of.get(tuple(output[-size:]))
            if end is not None:
                return end
        return None
