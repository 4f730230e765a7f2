"""Drafters: each fills the slots of a draft from one source of tokens. One drafter a file."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..draft import Accepted, Draft, Verified
from ..errors import RecipeError
from ..sequence import Sequence

MOST_TOKENS = 127  # of a draft: with the pending token they fill the scratch rows of a cache
MOST_VOCABULARY = 1 << 24  # entries of a table by token


def check_counts(least: int = 1, most: int = MOST_TOKENS, **counts: int) -> None:
    """Check parameters of a drafter that count something. A manifest gives them, which a stranger may have written.

    Args:
        least: the smallest number that is right.
        most: the largest one.
        counts: the parameters by name.

    Raises:
        RecipeError: one is not a whole number in this range.
    """
    for name, count in counts.items():
        if type(count) is not int or not least <= count <= most:
            raise RecipeError(f"{name} is {count!r}; give a whole number from {least} to {most}")


def check_probability(**probabilities: float) -> None:
    """Check parameters of a drafter that are probabilities.

    Raises:
        RecipeError: one is not a number from 0 to 1.
    """
    for name, probability in probabilities.items():
        if type(probability) not in (int, float) or not 0 <= probability <= 1:
            raise RecipeError(f"{name} is {probability!r}; give a number from 0 to 1")


class Drafter(ABC):
    """A source of drafts.

    A session makes each drafter once, from its engines and parameters by name, and uses it for all requests. No call
    announces a new request: `propose` sees the whole sequence, and must notice when that is another text.
    """

    @abstractmethod
    def propose(self, seq: Sequence) -> Draft:
        """Return a draft whose tree is rooted in `seq.pending`. Levels below `seq.room` earn nothing."""

    # B027 asks for @abstractmethod, but most drafters rely on this empty default.
    def observe(self, seq: Sequence, draft: Draft, verified: Verified, accepted: Accepted) -> None:  # noqa: B027
        """Learn from a step. By default a drafter learns nothing.

        Args:
            seq: the sequence, which already holds the accepted tokens.
            draft: the draft of the step, which has fewer slots than the proposed one if a grammar cut it.
            verified: the target's outputs. They are views, which the target's next run overwrites.
            accepted: the slots of the draft that were committed.
        """
