"""A process that ends with its parent: what it runs, and what becomes of it when the parent is gone already."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from specc import parent_process

pytestmark = pytest.mark.process
COMMAND = [sys.executable, "-m", parent_process.__name__]


def test_a_module_gets_its_own_arguments() -> None:
    argv = [*COMMAND, str(os.getpid()), "json.tool", "--indent", "3"]
    result = subprocess.run(argv, input="[1]", capture_output=True, text=True, check=True)
    assert result.stdout == "[\n   1\n]\n"


def test_the_status_of_a_module_is_that_of_the_process() -> None:
    argv = [*COMMAND, str(os.getpid()), "json.tool", "/nowhere"]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_process_whose_parent_is_gone_ends_at_once() -> None:
    argv = [*COMMAND, str(os.getppid()), "json.tool"]  # Another process started it than the one that it is told.
    assert subprocess.run(argv, input="[1]", capture_output=True, text=True, check=False).returncode == -signal.SIGKILL
