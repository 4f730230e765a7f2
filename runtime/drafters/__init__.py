"""Drafters: each fills the slots of a draft from one source of tokens. One drafter a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from ..call import Call
from ..draft import Accepted, Draft, Outputs, Verified
from ..errors import RecipeError
from ..sequence import Sequence

Proposal = Generator[Call, Outputs, Draft]
D = TypeVar("D", bound="Drafter")
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
    """A source of drafts. It holds what all requests share: parameters, engines, and what it learned.

    A model makes each drafter once, from its engines and parameters by name, and uses it for all requests.

    Attributes:
        takes_length: whether it takes the parameters of any `lengths.LengthPolicy`.
        files: the parameters that name files of the bundle. The constructor gets their paths.
        suggests: whether `Drafting.suggest` returns texts.
        keeps_all_logits: whether `keep_logits`, if it takes that, keeps the logits after every slot of a draft.
    """

    takes_length: ClassVar[bool] = False
    files: ClassVar[tuple[str, ...]] = ()
    suggests: ClassVar[bool] = False
    keeps_all_logits: ClassVar[bool] = True

    @abstractmethod
    def open(self, seq: Sequence) -> Drafting[Any]:
        """Return the drafting of one request. What belongs to the request alone lives there."""


class Suggestion(NamedTuple):
    """A text that may follow a prompt, without verification.

    Attributes:
        tokens: its tokens.
        score: how likely the drafter finds it, a logarithm.
    """

    tokens: tuple[int, ...]
    score: float


class Drafting(Generic[D]):
    """A drafter at work on one request.

    A drafting without engines overrides `draft`, one with engines `propose`.

    Attributes:
        drafter: what the drafting shares with those of other requests.
        seq: the request's text and caches. The loop appends to it.
    """

    def __init__(self, drafter: D, seq: Sequence) -> None:
        self.drafter, self.seq = drafter, seq

    def propose(self, room: int) -> Proposal:
        """Yield the calls that a draft needs, get the outputs of each, and return the draft.

        The loop may run calls of several requests at once. Outputs are valid until the next call is asked for.

        Args:
            room: how many tokens are worth drafting. Levels of the draft's tree below that earn nothing.

        Returns:
            A draft whose tree is rooted in `seq.pending`.
        """
        yield from ()
        return self.draft(room)

    def draft(self, room: int) -> Draft:
        """Return a draft whose tree is rooted in `seq.pending`.

        Args:
            room: how many tokens are worth drafting. Levels of the tree below that earn nothing.
        """
        raise NotImplementedError(f"{type(self).__name__} overrides neither draft nor propose")

    def suggest(self, count: int) -> Generator[Call, Outputs, list[Suggestion]]:
        """Yield the calls that several texts need, and return the texts, likeliest first.

        Args:
            count: tokens of a text.
        """
        raise NotImplementedError(f"{type(self).__name__} suggests no texts")

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        """Learn from a step. By default a drafting learns nothing.

        Args:
            draft: the draft of the step, which has fewer slots than the proposed one if a grammar cut it. `seq`
                already holds its accepted tokens.
            verified: the target's outputs. They are views, which the target's next run overwrites.
            accepted: the slots of the draft that were committed.
        """
