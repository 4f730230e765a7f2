"""Run the systems of a benchmark in turns, round after round."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from specc.bench.policy import BENCH
from specc.bench.systems import Key, Run, SpeccSystem, System
from specc.bench.tasks import Task
from specc.runtime.errors import BackendError

T = TypeVar("T")


@dataclass(frozen=True)
class Results:
    """The outcome of all rounds.

    Attributes:
        runs: the runs of each mode, by round and prompt. A system that broke off has none.
        problems: why a system broke off, by its name.
    """

    runs: Mapping[Key, Sequence[Sequence[Run]]]
    problems: Mapping[str, str]


class Schedule:
    """A benchmark's turns: each mode of each system runs each prompt once a round.

    A system that breaks off is left out from then on, and so are its earlier runs. specc itself must not break off.
    """

    def __init__(
        self,
        systems: Sequence[System],
        tasks: Sequence[Task],
        *,
        rounds: int,
        new_tokens: int,
        stage: Callable[[str, int, int], None] = lambda title, done, total: None,
    ) -> None:
        """Plan the turns.

        Args:
            systems: the systems, specc first.
            tasks: the prompts.
            rounds: how many rounds are measured.
            new_tokens: how many tokens each answer has.
            stage: called before each run with a title, how many runs are done, and how many there are.
        """
        self.systems, self.tasks = systems, tasks
        self.rounds, self.new_tokens, self.stage = rounds, new_tokens, stage
        self.turns = [(system, mode) for system in systems for mode in system.modes]
        self.runs: dict[Key, list[list[Run]]] = {(system.name, mode): [] for system, mode in self.turns}
        self.problems: dict[str, str] = {}
        self.done, self.total = 0, len(self.turns) * (1 + rounds * len(tasks))

    def run(self) -> Results:
        """Warm up every mode, then run all rounds.

        Raises:
            BackendError: specc itself broke off.
        """
        for system, mode in self.turns:
            self.go("warm up", system, mode, self.tasks[0], 0, min(BENCH.warm_up_tokens, self.new_tokens))
        for number in range(self.rounds):
            self._run_round(number)
        return Results(self.runs, self.problems)

    def _run_round(self, number: int) -> None:
        for system in self.systems:
            system.renew()
        for rounds in self.runs.values():
            rounds.append([])
        title = f"round {number + 1} of {self.rounds}"
        for i, task in enumerate(self.tasks):
            for system, mode in rotate(self.turns, number + i):
                run = self.go(title, system, mode, task, i, self.new_tokens)
                if run:
                    self.runs[system.name, mode][-1].append(run)

    def go(self, title: str, system: System, mode: str, task: Task, seed: int, count: int) -> Run | None:
        """Run one prompt by one mode.

        Args:
            title: the title for `stage`.
            system: the system whose turn it is.
            mode: one of its modes.
            task: the prompt.
            seed: the seed of the rng.
            count: how many tokens the answer has.

        Returns:
            The run, or None if the system has broken off, now or earlier.

        Raises:
            BackendError: specc itself broke off.
        """
        self.stage(title, self.done, self.total)
        self.done += 1
        if system.name in self.problems:
            return None
        try:
            return system.run(mode, task.ids, count, seed)
        except BackendError as e:
            if isinstance(system, SpeccSystem):
                raise
            self.problems[system.name] = str(e)
            self.runs = {key: rounds for key, rounds in self.runs.items() if key[0] != system.name}
            return None


def rotate(items: Sequence[T], by: int) -> Iterator[T]:
    """Yield the items from number `by` on, and then those before it.

    The number counts round and round. With a new one for each prompt, no system always runs right after the same other
    one.
    """
    start = by % len(items)
    yield from (*items[start:], *items[:start])
