"""Length policies: how many tokens a drafter of chains drafts in a step.

A policy has two parts. A `Schedule` says how many tokens the next draft has at most, and learns from the steps. `Stop`s
end a draft early, by what the engine says of its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from math import ceil

from .draft import Outputs
from .errors import RecipeError


class Schedule:
    """A schedule of one number: each draft has `most` tokens at most.

    Attributes:
        most: the largest number that a draft may ever have.
        count: the number for the next draft.
    """

    first: int | None = None  # The number for the first draft; None is `most`.

    def __init__(self, most: int) -> None:
        self.most = most
        self.count = most if self.first is None else min(self.first, most)

    def observe(self, drafted: int, accepted: int) -> None:
        """Learn from a step. A draft that something cut short counts as whole if all of it was accepted.

        Args:
            drafted: the tokens of the draft.
            accepted: how many of them were accepted.
        """
        if accepted < drafted:
            self.count = max(1, self.shorter(accepted))
        else:
            self.count = min(self.longer(), self.most)

    def shorter(self, accepted: int) -> int:
        """Return the number after a draft that was rejected in part."""
        return self.count

    def longer(self) -> int:
        """Return the number after a draft that was accepted whole."""
        return self.count


class Heuristic(Schedule):
    """The heuristic schedule of transformers: 2 tokens more after a draft that was accepted whole, else 1 less.

    It begins with 5 tokens.
    """

    first = 5

    def shorter(self, accepted: int) -> int:
        return self.count - 1

    def longer(self) -> int:
        return self.count + 2


class Bass(Schedule):
    """The rule of BASS (Qian et al. 2024, arXiv:2404.15778).

    It begins with 7 tokens, and takes 2 more after a draft that was accepted whole, 32 at most. Otherwise it takes a
    tenth less, and one less again if the draft before was not accepted whole either, but no fewer than were accepted.
    """

    first = 7

    def __init__(self, most: int) -> None:
        super().__init__(min(most, 32))
        self.repeats = 0

    def shorter(self, accepted: int) -> int:
        count = max(accepted, self.count - ceil(self.count / 10) - self.repeats)
        self.repeats = 1
        return count

    def longer(self) -> int:
        self.repeats = 0
        return self.count + 2


SCHEDULES: dict[str, type[Schedule]] = {"constant": Schedule, "heuristic": Heuristic, "bass": Bass}


class Stop:
    """A reason to end a draft early.

    A rule that accepts sampled tokens is exact only if `takes` does not depend on the token that it decides about.

    Attributes:
        reads_probability: whether `goes_on` reads its argument.
    """

    reads_probability = False

    def begin(self) -> None:
        """Forget the last draft."""

    def takes(self, outputs: Outputs) -> bool:
        """Tell whether the draft takes a token from the engine's outputs, which have one row."""
        return True

    def goes_on(self, probability: float) -> bool:
        """Tell whether the draft goes on after a token.

        Args:
            probability: that of the token, by the distribution that it was taken from.
        """
        return True


class Confidence(Stop):
    """A stop after a token to which the engine gave a smaller probability than a threshold."""

    reads_probability = True

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def goes_on(self, probability: float) -> bool:
        return probability >= self.threshold


class Cumulative(Stop):
    """The rule of SpecDec++ (Huang et al. 2024, arXiv:2405.19715): stop once a rejection is likely enough.

    The probability that the whole draft is accepted is the product of those of its tokens. The paper trains a head
    that estimates each. Here the engine's own probability of the token is the estimate. For a chain this is also the
    log-sum-exp mass of Dynamic Depth Decoding (Brown et al. 2024, arXiv:2409.00142), whose beam then has one path.
    """

    reads_probability = True

    def __init__(self, threshold: float) -> None:
        """Keep the threshold: the largest probability of a rejection at which the draft goes on."""
        self.threshold, self.accepted = threshold, 1.0

    def begin(self) -> None:
        self.accepted = 1.0

    def goes_on(self, probability: float) -> bool:
        self.accepted *= probability
        return 1 - self.accepted <= self.threshold


class Fallback(Stop):
    """The fallback of BiLD (Kim et al. 2023, arXiv:2302.07863): refuse a token when the engine is in doubt.

    The engine's largest probability decides, not that of the token.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def takes(self, outputs: Outputs) -> bool:
        return bool(outputs.top(0)[1][0] >= self.threshold)


class Length:
    """A length policy of one request: a schedule, and stops of which each can end a draft.

    Attributes:
        reads_probability: whether a stop reads the probabilities of tokens. It costs time to find them.
    """

    def __init__(self, schedule: Schedule, stops: Items[Stop] = ()) -> None:
        self.schedule, self.stops = schedule, stops
        self.reads_probability = any(stop.reads_probability for stop in stops)

    def begin(self) -> int:
        """Begin a draft, and return how many tokens it has at most."""
        for stop in self.stops:
            stop.begin()
        return self.schedule.count

    def takes(self, outputs: Outputs) -> bool:
        """Tell whether the draft takes a token from the engine's outputs, which have one row."""
        return not self.stops or all(stop.takes(outputs) for stop in self.stops)

    def goes_on(self, probability: float) -> bool:
        """Tell whether the draft goes on after a token of this probability."""
        return not self.stops or all(stop.goes_on(probability) for stop in self.stops)

    def observe(self, drafted: int, accepted: int) -> None:
        """Learn from a step: how many tokens were drafted, and how many of them were accepted."""
        if drafted:
            self.schedule.observe(drafted, accepted)


def schedule_of(name: str) -> type[Schedule]:
    """Return a schedule by its name, which a manifest gives. Raises RecipeError if there is none."""
    if name not in SCHEDULES:
        raise RecipeError(f"num_assistant_tokens_schedule is {name!r}; choose one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
