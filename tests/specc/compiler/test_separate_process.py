"""A module in a process of its own: its lines, its end, and what is said if it fails."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from specc.compiler.separate_process import run_module
from specc.runtime.errors import BackendError

pytestmark = pytest.mark.torch


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that runs the code that it is given as its first argument."""
    file = tmp_path / "measuring.py"
    file.write_text("import sys\nif __name__ == '__main__':\n    exec(sys.argv[1])\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    spec = importlib.util.spec_from_file_location("measuring", file)
    assert spec
    return importlib.util.module_from_spec(spec)


def test_lines_are_passed_on_and_arguments_too(module: ModuleType) -> None:
    lines: list[str] = []
    run_module(module, "print(' a'); print(*sys.argv[2:])", "b", "c", purpose="measure", advance=lines.append)
    assert lines == ["a", "b c"]


@pytest.mark.parametrize("purpose", ["measure the recipes", "tune the recipes"])
def test_a_failure_names_the_step_and_the_last_line(purpose: str, module: ModuleType) -> None:
    code = "sys.exit('first\\nmatrix is singular')"
    with pytest.raises(BackendError) as error:
        run_module(module, code, purpose=purpose)
    assert str(error.value) == f"cannot {purpose} on this machine: matrix is singular"


def test_a_process_that_dies_in_silence_is_named_by_its_status(module: ModuleType) -> None:
    with pytest.raises(BackendError, match="cannot tune on this machine: the process ended with status 3"):
        run_module(module, "sys.exit(3)", purpose="tune")


def test_an_interrupt_ends_the_process(module: ModuleType) -> None:
    """It is killed, so that nothing measures on while the compile is gone."""
    processes: list[int] = []

    def interrupt(line: str) -> None:
        processes.append(int(line))
        raise KeyboardInterrupt

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run_module(module, code, purpose="measure", advance=interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(processes[0], signal.SIG_DFL)


COMPILES = """
import importlib.util, sys
from types import ModuleType
from specc.compiler.separate_process import run_module
run_module(ModuleType("measuring"), sys.argv[1], purpose="measure", advance=lambda line: print(line, flush=True))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_compile_that_is_killed_takes_its_measuring_process_along(module: ModuleType) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    command = [sys.executable, "-c", COMPILES, code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as compiling:
        assert compiling.stdout
        measuring = int(compiling.stdout.readline())
        os.kill(measuring, signal.SIG_DFL)  # It lives.
        compiling.kill()
    for _ in range(200):
        if not Path(f"/proc/{measuring}").exists() or "(zombie)" in Path(f"/proc/{measuring}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the measuring process lives on")
