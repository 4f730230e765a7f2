"""What a benchmark runs: one prompt by one mode of one system, and what that took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from specc import machine
from specc.runtime.acceptance import Acceptance
from specc.runtime.bundle import Bundle
from specc.runtime.device import CPU, Device
from specc.runtime.session import Session


@dataclass(frozen=True)
class Run:
    """One answer. `first` tokens came with the first one; decoding is what came after, in `seconds`.

    drafts, accepted: steps that drafted and drafted tokens kept, None where the system does not tell.
    histogram: how many drafts had 0, 1, … tokens kept.
    """

    token_ids: Sequence[int]
    first: int
    prefill_seconds: float
    seconds: float
    drafts: int | None = None
    accepted: int | None = None
    histogram: Sequence[int] = ()


class System(Protocol):
    """One program that decodes, by any of its modes."""

    name: str

    @property
    def modes(self) -> Sequence[str]: ...

    def run(self, mode: str, ids: Sequence[int], count: int, seed: int) -> Run: ...

    def renew(self) -> None:
        """Forget what earlier prompts taught."""

    def memory(self) -> int | None:
        """Bytes of its process, shared pages in proportion."""


class SpeccSystem:
    """A bundle; its modes are recipes. `accept` takes the place of every recipe's own rule."""

    name = "specc"

    def __init__(
        self, bundle: Bundle, recipes: Sequence[str], accept: Acceptance | None = None, place: Device = CPU,
        guard: bool = True,
    ) -> None:  # fmt: skip
        self.session, self.modes, self.accept, self.guard = Session(bundle, place), tuple(recipes), accept, guard

    def run(self, mode: str, ids: Sequence[int], count: int, seed: int) -> Run:
        self.session.cache.sync([])  # or a prompt that another mode has just run would need no prefill
        got = self.session.generate(
            ids, count, recipe=mode, acceptance=self.accept, ignore_eos=True, seed=seed, guard=self.guard
        )
        stats = got.stats
        histogram = [stats.histogram[n] for n in range(max(stats.histogram, default=-1) + 1)]
        return Run(
            got.token_ids, 1, stats.prefill_seconds, stats.seconds, stats.drafts, stats.accepted, tuple(histogram)
        )

    def renew(self) -> None:
        self.session.drafters.clear()

    def memory(self) -> int | None:
        return machine.memory()
