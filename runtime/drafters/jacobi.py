"""Jacobi decoding (Santilli et al. 2023, arXiv:2305.10427; Speculative Jacobi, Teng et al. 2024, arXiv:2410.01699).

V  vocabulary
"""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..draws import DrawnProbs, Draws
from ..errors import RecipeError
from ..sequence import Sequence
from . import MOST_VOCABULARY, Drafter, Drafting, check_counts


class Jacobi(Drafter):
    """A drafter whose guesses are the target's answers of the last step, below the last accepted slot.

    Slots without an answer repeat the pending token.

    With `sample` it is the drafter of Speculative Jacobi Decoding: where the request samples, a guess is a fresh sample
    of the row that the last step gave for its place, and the draft states that row. So the rule of speculative sampling
    keeps the target's distribution. A token that is kept from the step before, and stated with the new row, would not.
    A slot without an answer states that its token was certain.

    It departs from that paper in what fills new slots. The paper draws them at random, or copies
    neighbours in an image.
    """

    keeps_all_logits = False

    def __init__(
        self,
        num_speculative_tokens: int = 5,
        vocab_size: int | None = None,
        sample: bool = False,
        keep_logits: bool = False,
    ) -> None:
        """Keep the parameters.

        Args:
            num_speculative_tokens: tokens guessed in a step.
            vocab_size: tokens of the vocabulary, V. Only samples need it.
            sample: sample the guesses if the request samples.
            keep_logits: state the logits that each guess comes from.

        Raises:
            RecipeError: a parameter is out of range, or `sample` is set without a size of the vocabulary.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        if vocab_size is not None:
            check_counts(most=MOST_VOCABULARY, vocab_size=vocab_size)
        elif sample:
            raise RecipeError("vocab_size is missing, and sampled guesses need it; compile the bundle again")
        self.count, self.vocab_size = num_speculative_tokens, vocab_size
        self.sample, self.keep_logits = sample, keep_logits

    def open(self, seq: Sequence) -> JacobiDrafting:
        return JacobiDrafting(self, seq)


class JacobiDrafting(Drafting[Jacobi]):
    """The guesses of one request.

    Attributes:
        guess: the guessed tokens.
        draws: what they were drawn from; empty if they were not drawn.
        logits: the logits that they come from, each [V]; empty if nobody asked for them.
        samples: whether guesses are drawn at random: if the rule asks for it, and the request samples.
    """

    guess: tuple[int, ...] = ()
    draws: tuple[Draws, ...] = ()
    logits: tuple[np.ndarray, ...] = ()

    def __init__(self, drafter: Jacobi, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.samples = drafter.sample and not seq.sampling.greedy

    def draft(self, room: int) -> Draft:
        missing = self.drafter.count - len(self.guess)
        tokens = [self.seq.pending, *self.guess, *[self.seq.pending] * missing]
        if not self.samples:
            return Draft.chain(tokens, logits=dict(enumerate(self.logits)) if self.logits else None)
        certain = Draws.certain(self.seq.sampling.rng, self.seq.pending, self.drafter.vocab_size or 0)
        draws = [*self.draws, *[certain] * missing]
        return Draft.chain(tokens, DrawnProbs(dict(enumerate(draws))), dict(enumerate(self.logits)))

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        if self.drafter.keep_logits:
            assert verified.outputs.logits_NV is not None
            self.logits = tuple(verified.outputs.logits_NV[len(accepted.slots) : len(draft.tokens)].copy())
        if not self.samples:
            self.guess = tuple(verified.outputs.ids_N[len(accepted.slots) : len(draft.tokens)].tolist())
            return
        slots = range(len(accepted.slots), len(draft.tokens))
        # A place of the text has another slot at each step, so no two draws of it share their random numbers.
        self.draws = tuple([verified.draws(slot) for slot in slots])
        self.guess = tuple([draws.pick() for draws in self.draws])
