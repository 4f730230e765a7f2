"""Mutated bundles end in the right tokens, or in one line: no crash, no hang, no traceback, no other tokens."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fuzz.mutators import MUTATORS, Mutation, mutation
from fuzz.verdicts import FAULT, RIGHT, verdict

WORKER = Path(__file__).with_name("worker.py")
SHORT, LONG = 60, 10_000
PROCESSES = 2


def reports(directory: Path, first: int, last: int) -> Iterator[dict[str, Any]]:
    """Try the seeds from `first` on, below `last`, in several processes."""
    workers = []
    for number in range(PROCESSES):
        folder = directory / str(number)
        folder.mkdir()
        argv = [sys.executable, str(WORKER), str(folder), str(first + number), str(last), str(PROCESSES)]
        workers.append(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
    for worker in workers:
        output, _ = worker.communicate()
        assert worker.returncode == 0
        yield from map(json.loads, output.splitlines())


def check(directory: Path, first: int, last: int) -> Counter[str]:
    """Check that every mutation of some seeds ends well, and return how many ended how."""
    results = list(reports(directory, first, last))
    assert sorted(r["seed"] for r in results) == list(range(first, last))
    assert [r for r in results if r["verdict"] not in RIGHT] == []
    return Counter(r["verdict"] for r in results)


GENERATE, TEST = ("generate", "--json"), ("test",)
FALSE: dict[str, tuple[int | str, str, str]] = {
    "a crash": (-11, "", ""),
    "a hang": ("hang", "", ""),
    "an exception": (FAULT, "", "Traceback (most recent call last):"),
    "a traceback beside an error": (2, "", "Traceback (most recent call last):\nspecc: error: no"),
    "two lines": (2, "", "thread panicked\nspecc: error: no"),
    "no line": (2, "", ""),
    "an escape": (2, "", "specc: error: \x1b[2J"),
    "other tokens": (0, '{"token_ids": [1, 3]}', ""),
}


@pytest.mark.parametrize(("status", "out", "err"), FALSE.values(), ids=FALSE)
def test_what_no_bundle_may_do_is_noticed(status: int | str, out: str, err: str) -> None:
    mutated = Mutation("manifest", "", {}, False, GENERATE)
    assert verdict({"status": status, "out": out, "err": err}, mutated, [1, 2]) not in RIGHT


@pytest.mark.parametrize(
    ("status", "out", "err", "may_change", "arguments", "right"),
    [
        (0, '{"token_ids": [1, 2]}', "", False, GENERATE, "same"),
        (0, '{"token_ids": [1, 3]}', "", True, GENERATE, "changed"),
        (1, "", "", True, TEST, "tested"),
        (2, "", "specc: warning: a\nspecc: error: no", False, GENERATE, "refused"),
    ],
)
def test_what_a_bundle_may_do_is_right(
    status: int, out: str, err: str, may_change: bool, arguments: tuple[str, ...], right: str
) -> None:
    mutated = Mutation("manifest", "", {}, may_change, arguments)
    assert verdict({"status": status, "out": out, "err": err}, mutated, [1, 2]) == right


def test_a_seed_always_gives_one_mutation_and_few_seeds_give_all_kinds() -> None:
    assert mutation(7) == mutation(7)
    assert {mutation(seed).kind for seed in range(100)} == set(MUTATORS)


@pytest.mark.model
def test_mutated_bundles_are_refused_in_one_line_or_give_the_same_tokens(tmp_path: Path) -> None:
    counts = check(tmp_path, 0, SHORT)
    assert counts["refused"] > SHORT // 3 and counts["same"] > 3 and counts["changed"] > 1


@pytest.mark.slow
def test_ten_thousand_mutated_bundles_end_well(tmp_path: Path) -> None:
    check(tmp_path, SHORT, LONG)
