"""The systems that a benchmark runs: one prompt by one mode of one system, and what that took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from specc import machine
from specc.runtime.acceptance import Acceptance
from specc.runtime.bundle import Bundle
from specc.runtime.device import CPU, Device
from specc.runtime.sampling_defaults import PLAIN_GREEDY
from specc.runtime.session import open_session

Key = tuple[str, str]  # The name of a system, and one of its modes.
BASELINE: Key = ("specc", "plain")  # Speed-ups are measured against this mode.


@dataclass(frozen=True)
class Run:
    """A timed answer to one prompt.

    Attributes:
        token_ids: the tokens of the answer.
        first: how many of them came at once with the first one.
        prefill_seconds: the time until then.
        seconds: the time of decoding, which gave the other tokens.
        drafts: how many steps drafted; None if the system does not report it.
        accepted: how many drafted tokens were accepted; None if the system does not report it.
        histogram: how many drafts had 0, 1, … tokens accepted; empty if the system does not report it.
        verify_seconds: the part of `seconds` in which the target ran; None if the system does not report it.
        host_seconds: the part of `seconds` outside engines; None if the system does not report it.
    """

    token_ids: Sequence[int]
    first: int
    prefill_seconds: float
    seconds: float
    drafts: int | None = None
    accepted: int | None = None
    histogram: Sequence[int] = ()
    verify_seconds: float | None = None
    host_seconds: float | None = None


class System(Protocol):
    """A program that decodes, in one or several modes."""

    name: str

    @property
    def modes(self) -> Sequence[str]:
        """The names of its modes."""

    def run(self, mode: str, ids: Sequence[int], count: int, seed: int) -> Run:
        """Decode `count` tokens after the prompt `ids`, and measure."""

    def renew(self) -> None:
        """Forget what was learned from earlier prompts."""

    def memory(self) -> int | None:
        """Return the memory of its process in bytes, or None if that is not known. Shared pages count in part."""


class SpeccSystem:
    """A bundle as a system of a benchmark. Its modes are recipes."""

    name = BASELINE[0]

    def __init__(
        self,
        bundle: Bundle,
        recipes: Sequence[str],
        accept: Acceptance | None = None,
        device: Device = CPU,
        guard: bool = True,
        exact: bool = False,
    ) -> None:
        """Open a session on the bundle.

        Args:
            bundle: the bundle.
            recipes: names of its recipes.
            accept: an acceptance rule in place of every recipe's own one.
            device: where the engines run.
            guard: whether the guard may stop drafts that do not pay.
            exact: whether every step of a recipe runs at one width.
        """
        self.session = open_session(bundle, device)
        self.modes, self.accept, self.guard, self.exact = tuple(recipes), accept, guard, exact

    def run(self, mode: str, ids: Sequence[int], count: int, seed: int) -> Run:
        """Decode by a recipe, from an empty cache.

        The rows of the mode that ran before would save this one the prefill of the same prompt.
        """
        self.session.cache.sync([])
        generation = self.session.generate(
            ids,
            count,
            recipe=mode,
            acceptance=self.accept,
            **PLAIN_GREEDY,
            ignore_eos=True,
            seed=seed,
            guard=self.guard,
            exact=self.exact,
        )
        stats = generation.stats
        deepest = max(stats.histogram, default=-1)
        return Run(
            token_ids=generation.token_ids,
            first=1,
            prefill_seconds=stats.prefill_seconds,
            seconds=stats.seconds,
            drafts=stats.drafts,
            accepted=stats.accepted,
            histogram=tuple(stats.histogram[n] for n in range(deepest + 1)),
            verify_seconds=stats.verify_seconds,
            host_seconds=max(0.0, stats.seconds - stats.engine_seconds),  # Engines may run at the same time.
        )

    def renew(self) -> None:
        """Forget the drafters, which learn from what they see."""
        self.session.shared.drafters.clear()

    def memory(self) -> int | None:
        """Return the memory of this process in bytes, or None if that is not known."""
        return machine.memory()
