"""Length policies: how many tokens a drafter of chains drafts in a step.

A policy has two parts. A `Schedule` says how many tokens the next draft has at most, and learns from the steps. `Stop`s
end a draft early, by what the engine says of its tokens. `LengthPolicy` makes both from the parameters of a recipe.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import dataclass
from math import ceil, tanh

from .draft import Outputs
from .drafters import check_counts, check_probability
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

    def observe(self, drafted: int, accepted: int) -> None:
        """Learn from a step. By default a stop learns nothing.

        Args:
            drafted: the tokens of the draft, one at least.
            accepted: how many of them were accepted.
        """


class Confidence(Stop):
    """A stop after a token to which the engine gave a smaller probability than a threshold."""

    reads_probability = True

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def goes_on(self, probability: float) -> bool:
        return probability >= self.threshold


class Adaptive(Confidence):
    """The adaptive threshold of Draft & Verify (Zhang et al. 2024, arXiv:2309.08168).

    It is a stop by confidence whose threshold moves. If too few drafted tokens were accepted of late, the threshold
    rises, so that drafts become shorter. If enough were accepted, it falls. Both the share of accepted tokens and the
    threshold are smoothed over the steps.
    """

    KEEPS_SHARE, KEEPS_THRESHOLD, STEP = 0.5, 0.9, 0.01  # beta 1, beta 2 and epsilon of the paper

    def __init__(self, threshold: float, aim: float) -> None:
        """Begin with a threshold.

        Args:
            threshold: the first threshold, gamma in the paper.
            aim: the share of accepted tokens that is enough, alpha in the paper.
        """
        super().__init__(threshold)
        self.aim, self.share = aim, aim

    def observe(self, drafted: int, accepted: int) -> None:
        self.share = self.KEEPS_SHARE * self.share + (1 - self.KEEPS_SHARE) * accepted / drafted
        moved = self.threshold + (self.STEP if self.share <= self.aim else -self.STEP)
        smooth = self.KEEPS_THRESHOLD * self.threshold + (1 - self.KEEPS_THRESHOLD) * moved
        self.threshold = min(1.0, max(0.0, smooth))


class Cumulative(Stop):
    """The rule of SpecDec++ (Huang et al. 2024, arXiv:2405.19715): stop once a rejection is likely enough.

    The probability that the whole draft is accepted is the product of those of its tokens. The paper trains a head
    that estimates each, as `Foreseen` has it. Here the engine's own probability of the token is the estimate. For a
    chain this is also the log-sum-exp mass of Dynamic Depth Decoding (Brown et al. 2024, arXiv:2409.00142), whose beam
    then has one path.
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


class Foreseen(Stop):
    """The rule of SpecDec++ with its trained head (Huang et al. 2024, arXiv:2405.19715).

    The head reads the draft model's state after a drafted token, and its one number is the logit of the probability
    that the target accepts the token. So the estimate of a token is there when the next one could be taken. The draft
    ends before that one if a rejection is likely enough.
    """

    def __init__(self, threshold: float, head: str) -> None:
        """Begin before the first draft.

        Args:
            threshold: the largest probability of a rejection at which the draft goes on.
            head: the name of the head among the states that the engine returns.
        """
        self.threshold, self.head = threshold, head
        self.begin()

    def begin(self) -> None:
        self.is_pending, self.accepted = True, 1.0

    def takes(self, outputs: Outputs) -> bool:
        if self.is_pending:  # The engine ran the pending token, which the target itself chose.
            self.is_pending = False
            return True
        self.accepted *= logistic(outputs, self.head)
        return 1 - self.accepted <= self.threshold


class Fallback(Stop):
    """The fallback of BiLD (Kim et al. 2023, arXiv:2302.07863): refuse a token when the engine is in doubt.

    The engine's largest probability decides, not that of the token.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def takes(self, outputs: Outputs) -> bool:
        return bool(outputs.top(0)[1][0] >= self.threshold)


class Margin(Stop):
    """The second router of FS-GEN (Zhang et al. 2024, arXiv:2406.12295): refuse a token if two of them are close.

    Half of the distance between the engine's two largest probabilities decides.
    """

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold

    def takes(self, outputs: Outputs) -> bool:
        _, probs = outputs.top(0)
        second = probs[1] if len(probs) > 1 else 0.0
        return bool((probs[0] - second) / 2 >= self.threshold)


class Gate(Stop):
    """The gate of M2R2 (Bhendawade et al. 2025, arXiv:2502.02040): refuse a token that may not leave at the exit.

    A trained head reads the states of the layers before the exit. Its one number is the logit of the probability that
    the token which the exit says is the target's.
    """

    def __init__(self, threshold: float, head: str) -> None:
        """Keep the threshold.

        Args:
            threshold: the least probability with which a token leaves.
            head: the name of the head among the states that the engine returns.
        """
        self.threshold, self.head = threshold, head

    def takes(self, outputs: Outputs) -> bool:
        return logistic(outputs, self.head) >= self.threshold


def logistic(outputs: Outputs, head: str) -> float:
    """Return the probability whose logit is the one number of a head's state, in the only row of an engine's outputs.

    Raises:
        RecipeError: the engine returns no such state.
    """
    if head not in outputs.states:
        raise RecipeError(f"the draft's engine returns no state of the head {head!r}; compile the bundle again")
    return 0.5 + 0.5 * tanh(0.5 * float(outputs.states[head][0, 0]))


class Length:
    """A length policy of one request: a schedule, and stops of which each can end a draft.

    Attributes:
        reads_probability: whether a stop reads the probabilities of tokens. It costs time to find them.
    """

    def __init__(self, schedule: Schedule, stops: Items[Stop] = ()) -> None:
        self.schedule, self.stops = schedule, tuple(stops)
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
            for stop in self.stops:
                stop.observe(drafted, accepted)


@dataclass(frozen=True, kw_only=True)
class LengthPolicy:
    """The length policy of a recipe, by its parameters. The constructor raises RecipeError for one out of range.

    Attributes:
        num_speculative_tokens: drafted tokens a step at most.
        num_assistant_tokens_schedule: the schedule of that number, one of `SCHEDULES`.
        assistant_confidence_threshold: drafting stops after a token to which the engine gave a smaller probability.
        target_acceptance_rate: the share of accepted tokens towards which that threshold moves; 0 leaves it as it is.
        rejection_threshold: drafting stops once the probability that a token is rejected exceeds this. 1 never stops.
        acceptance_head: the trained head that estimates this probability, by its name among the states of the engine;
            empty takes the engine's own probabilities.
        fallback_threshold: drafting stops before a token if the engine's largest probability is smaller.
        margin_threshold: drafting stops before a token if half of the distance between the engine's two largest
            probabilities is smaller.
        gate: the trained head that says whether a token may leave at the exit, by its name among the states of the
            engine; empty for none.
        gate_threshold: drafting stops before a token to which the gate gives a smaller probability to be right. 0
            never stops.
    """

    num_speculative_tokens: int = 4
    num_assistant_tokens_schedule: str = "constant"
    assistant_confidence_threshold: float = 0.0
    target_acceptance_rate: float = 0.0
    rejection_threshold: float = 1.0
    acceptance_head: str = ""
    fallback_threshold: float = 0.0
    margin_threshold: float = 0.0
    gate: str = ""
    gate_threshold: float = 0.0

    def __post_init__(self) -> None:
        check_counts(num_speculative_tokens=self.num_speculative_tokens)
        check_probability(
            assistant_confidence_threshold=self.assistant_confidence_threshold,
            target_acceptance_rate=self.target_acceptance_rate,
            rejection_threshold=self.rejection_threshold,
            fallback_threshold=self.fallback_threshold,
            margin_threshold=self.margin_threshold,
            gate_threshold=self.gate_threshold,
        )
        for name, head in (("acceptance_head", self.acceptance_head), ("gate", self.gate)):
            if not isinstance(head, str):
                raise RecipeError(f"{name} is {head!r}; give the name of a trained head")
        schedule_of(self.num_assistant_tokens_schedule)

    def open(self) -> Length:
        """Return the length policy of a new request."""
        stops: list[Stop] = []
        if self.target_acceptance_rate:
            stops.append(Adaptive(self.assistant_confidence_threshold, self.target_acceptance_rate))
        elif self.assistant_confidence_threshold:
            stops.append(Confidence(self.assistant_confidence_threshold))
        if self.rejection_threshold < 1:
            threshold, head = self.rejection_threshold, self.acceptance_head
            stops.append(Foreseen(threshold, head) if head else Cumulative(threshold))
        if self.fallback_threshold:
            stops.append(Fallback(self.fallback_threshold))
        if self.margin_threshold:
            stops.append(Margin(self.margin_threshold))
        if self.gate and self.gate_threshold:
            stops.append(Gate(self.gate_threshold, self.gate))
        return Length(schedule_of(self.num_assistant_tokens_schedule)(self.num_speculative_tokens), stops)


def schedule_of(name: str) -> type[Schedule]:
    """Return a schedule by its name, which a manifest gives. Raises RecipeError if there is none."""
    if not isinstance(name, str) or name not in SCHEDULES:
        raise RecipeError(f"num_assistant_tokens_schedule is {name!r}; choose one of {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
