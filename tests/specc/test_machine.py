"""The description of the machine, and the memory of this process."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from specc import machine


def test_the_machine_is_described() -> None:
    here = machine.describe()
    assert asdict(here).keys() == {"cpu", "cores", "threads", "memory_bytes", "system", "python", "onnxruntime"}
    assert here.cpu and here.cores >= 1 <= here.threads


def test_threads_are_those_of_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_THREADS", "3")
    assert machine.describe().threads == 3


def test_this_process_takes_a_part_of_the_memory() -> None:
    assert 1e6 < (machine.memory() or 0) < machine.describe().memory_bytes
