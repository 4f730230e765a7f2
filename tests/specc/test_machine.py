"""The description of the machine, and the memory of this process."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from specc import machine


def test_the_machine_is_described() -> None:
    here = machine.describe()
    keys = {"cpu", "cores", "threads", "memory_bytes", "system", "python", "onnxruntime", "gpu"}
    assert asdict(here).keys() == keys and here.gpu == "" and machine.describe("NVIDIA H200").gpu == "NVIDIA H200"
    assert here.cpu and here.cores >= 1 <= here.threads


@pytest.mark.parametrize(
    ("lines", "name"), [("NVIDIA H200\nNVIDIA H200\n", "NVIDIA H200"), ("A\nB\n", "A or B"), ("", ""), (None, "")]
)
def test_a_gpu_is_named_by_its_driver(
    lines: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lines is not None:
        driver = tmp_path / "nvidia-smi"
        driver.write_text(f"#!/bin/sh\necho '{lines}'\n")
        driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.gpu_name() == name


def test_threads_are_those_of_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_THREADS", "3")
    assert machine.describe().threads == 3


def test_this_process_takes_a_part_of_the_memory() -> None:
    assert 1e6 < (machine.memory() or 0) < machine.describe().memory_bytes


@pytest.mark.parametrize(("load", "is_busy"), [(0.1, False), (5.3, True)])
def test_a_busy_machine_is_said_before_a_measurement(
    load: float, is_busy: bool, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(machine, "BUSY", 0.75)
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    machine.warn_if_busy()
    assert [str(one.message)[:44] for one in recwarn] == ["this machine is busy (load 5.3 on 2 cores), "] * is_busy
