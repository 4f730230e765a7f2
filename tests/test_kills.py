"""Compile, tune and bench leave a whole bundle or none, whatever ends them; the next run clears away what remains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import kills
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.model]


def run(model: Path, directory: Path, count: int) -> dict[str, int]:
    """Kill so many runs, check that nothing was wrong, and return how many ended in which way."""
    argv = [sys.executable, "-P", kills.__file__, str(model), str(directory), str(count), "15"]
    process = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120 + 60 * count)
    assert process.returncode == 0, process.stderr
    result = json.loads(process.stdout.splitlines()[-1])
    assert result["faults"] == [], process.stderr
    endings: dict[str, int] = result["endings"]
    assert sum(endings.values()) == count
    return endings


@pytest.mark.slow
def test_one_kill_or_full_disk_of_each_kind_does_no_harm(model: Path, tmp_path: Path) -> None:
    endings = run(model, tmp_path, len(kills.CHANCES))
    assert sum(count for name, count in endings.items() if name.endswith("killed")) >= 3


@pytest.mark.slow
def test_two_hundred_kills_and_full_disks_do_no_harm(model: Path, tmp_path: Path) -> None:
    endings = run(model, tmp_path, 200)
    assert sum(count for name, count in endings.items() if name.endswith("killed")) >= 80
