"""The turns of a benchmark, on systems that only record when they run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from specc.bench.schedule import Schedule, rotate
from specc.bench.systems import Run, SpeccSystem
from specc.bench.tasks import Task
from specc.runtime.errors import BackendError

TASKS = [Task([1], "a"), Task([2], "b"), Task([3], "b")]
Order = list[tuple[str, str, int, int]]


class Recorder:
    """A system that records the name, the mode, the prompt and the tokens of each run, and breaks off at run `life`."""

    def __init__(self, name: str, modes: Sequence[str], order: Order, life: int = 999) -> None:
        self.name, self.modes, self.order, self.life = name, tuple(modes), order, life
        self.rounds = 0

    def run(self, mode: str, ids: Sequence[int], count: int, seed: int) -> Run:
        self.life -= 1
        if self.life < 0:
            raise BackendError(f"{self.name} broke off")
        self.order.append((self.name, mode, ids[0], count))
        return Run([1] * count, 1, 0.1, 0.1)

    def renew(self) -> None:
        self.rounds += 1

    def memory(self) -> int | None:
        return None


class OwnRecorder(Recorder, SpeccSystem):
    """A recorder that takes the place of specc itself."""


def test_every_mode_warms_up_and_then_runs_every_prompt_in_each_round() -> None:
    order: Order = []
    systems = [Recorder("specc", ("plain", "x"), order), Recorder("peer", ("y",), order)]
    results = Schedule(systems, TASKS, rounds=2, new_tokens=20).run()
    assert order[:3] == [("specc", "plain", 1, 16), ("specc", "x", 1, 16), ("peer", "y", 1, 16)]
    rounds = [order[3:12], order[12:]]
    for runs in rounds:
        assert sorted(runs) == sorted((s.name, m, p, 20) for s in systems for m in s.modes for p in (1, 2, 3))
        assert [prompt for _, _, prompt, _ in runs] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [len(r) for r in results.runs["specc", "plain"]] == [3, 3] and results.problems == {}
    assert all(system.rounds == 2 for system in systems)


def test_the_first_of_a_prompt_changes_from_prompt_to_prompt_and_from_round_to_round() -> None:
    order: Order = []
    Schedule([Recorder("specc", ("a", "b", "c"), order)], TASKS, rounds=2, new_tokens=4).run()
    runs = order[3:]
    assert [mode for _, mode, _, _ in runs[::3]] == ["a", "b", "c", "b", "c", "a"]


@pytest.mark.parametrize("life", [0, 1, 2, 5])
def test_a_system_that_breaks_off_is_left_out_and_the_others_go_on(life: int) -> None:
    order: Order = []
    systems = [Recorder("specc", ("plain",), order), Recorder("peer", ("x", "y"), order, life)]
    results = Schedule(systems, TASKS, rounds=2, new_tokens=4).run()
    assert results.problems == {"peer": "peer broke off"}
    assert results.runs.keys() == {("specc", "plain")}
    assert [len(runs) for runs in results.runs["specc", "plain"]] == [3, 3]
    assert len([run for run in order if run[0] == "peer"]) == life


def test_specc_itself_must_not_break_off() -> None:
    with pytest.raises(BackendError, match="specc broke off"):
        Schedule([OwnRecorder("specc", ("plain",), [], life=2)], TASKS, rounds=1, new_tokens=4).run()


def test_the_stage_counts_every_turn_even_those_of_a_system_that_is_gone() -> None:
    counts: list[tuple[int, int]] = []
    systems = [Recorder("specc", ("plain",), []), Recorder("peer", ("x",), [], life=1)]
    Schedule(
        systems, TASKS, rounds=2, new_tokens=4, stage=lambda title, done, total: counts.append((done, total))
    ).run()
    assert counts == [(done, 14) for done in range(14)]


def test_items_are_rotated() -> None:
    assert [list(rotate("abc", by)) for by in (0, 1, 5)] == [list("abc"), list("bca"), list("cab")]
