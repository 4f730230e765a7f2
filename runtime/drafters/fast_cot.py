"""FastCoT: keep guesses that are not final, and ask for the answer early (Zhang et al. 2023, arXiv:2311.08263). Lossy.

V  vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from typing import Any

import numpy as np

from ..draft import Draft
from ..errors import RecipeError
from ..sequence import Sequence
from . import MOST_VOCABULARY, check_counts, check_probability
from .jacobi import Jacobi, JacobiDrafting

MOST_STEPS = 1 << 20


class FastCot(Jacobi):
    """A drafter of Jacobi's guesses, some of which the rule `confidence` keeps without verification.

    The rule keeps a guess if the draft states logits by which it is likely enough. Without `reasoning_steps` the draft
    states those of all guesses. With `reasoning_steps` it is the paper's procedure: until the reasoning ends, no logits
    are stated, so all guesses are verified. It ends at the first step after so many ones whose guesses are all likely
    enough. This step keeps the guesses, and the tokens that ask for the answer behind them. Later steps verify again.

    The paper's own test for the end of the reasoning is unknown to us, and so is how its window varies by the position.
    """

    def __init__(
        self,
        num_speculative_tokens: int = 5,
        vocab_size: int = MOST_VOCABULARY,
        reasoning_steps: int = 0,
        answer_tokens: Tokens[int] = (),
        confidence_threshold: float = 0.9,
        keep_logits: bool = False,
    ) -> None:
        """Keep the parameters.

        Args:
            num_speculative_tokens: tokens guessed in a step.
            vocab_size: tokens of the vocabulary, V.
            reasoning_steps: steps before the reasoning may end; 0 keeps likely guesses in every step.
            answer_tokens: the text that asks for the answer.
            confidence_threshold: the probability that each guess must exceed for the reasoning to end; 1 never ends it.
            keep_logits: state logits in drafts. Without them all guesses are verified.

        Raises:
            RecipeError: a parameter is out of range.
        """
        super().__init__(num_speculative_tokens, vocab_size, keep_logits=keep_logits)
        check_counts(most=MOST_VOCABULARY, vocab_size=vocab_size)
        check_counts(0, MOST_STEPS, reasoning_steps=reasoning_steps)
        check_probability(confidence_threshold=confidence_threshold)
        check_tokens(answer_tokens, vocab_size)
        self.reasoning_steps, self.answer_tokens = reasoning_steps, tuple(answer_tokens)
        self.threshold = confidence_threshold

    def open(self, seq: Sequence) -> JacobiDrafting:
        return FastCotDrafting(self, seq) if self.reasoning_steps else super().open(seq)


class FastCotDrafting(JacobiDrafting):
    """The reasoning of one request.

    Attributes:
        steps: how many steps it took.
        reasons: whether it goes on.
    """

    steps, reasons = 0, True

    def draft(self, room: int) -> Draft:
        self.steps += 1
        draft = super().draft(room)
        drafter = self.drafter
        assert isinstance(drafter, FastCot)
        if not self.reasons or self.steps <= drafter.reasoning_steps or not self._is_ready():
            return draft._replace(logits={})
        tokens = (*draft.tokens[: 1 + len(self.guess)], *drafter.answer_tokens)
        if len(tokens) - 1 > room:
            return draft._replace(logits={})
        self.reasons = False
        logits = dict(enumerate(self.logits))
        for slot in range(len(self.guess), len(tokens) - 1):
            logits[slot] = _certain(tokens[slot + 1], len(self.logits[0]))
        return Draft.chain(tokens, logits=logits)

    def _is_ready(self) -> bool:
        """Tell whether there are guesses, and each is likelier than the threshold."""
        drafter = self.drafter
        assert isinstance(drafter, FastCot)
        return bool(self.logits) and all(
            np.exp(logits_V - logits_V[token]).sum(dtype=np.float64) * drafter.threshold < 1
            for token, logits_V in zip(self.guess, self.logits, strict=True)
        )


def check_tokens(tokens: Any, vocab_size: int) -> None:
    """Check the parameter `answer_tokens`. Raises RecipeError if it is not a list of token ids."""
    right = isinstance(tokens, (list, tuple)) and all(
        type(token) is int and 0 <= token < vocab_size for token in tokens
    )
    if not right:
        raise RecipeError(f"answer_tokens is {tokens!r}; give token ids from 0 to {vocab_size - 1}, such as [7, 12]")


def _certain(token: int, vocabulary: int) -> np.ndarray:
    """Return logits [V] by which a token is certain."""
    row_V = np.full(vocabulary, -np.inf, np.float32)
    row_V[token] = 0
    return row_V
