"""Run a module in a process of its own, which holds neither torch nor a model while it measures."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

from specc import parent_process
from specc.runtime.errors import BackendError


def run_module(
    module: ModuleType, *arguments: str, purpose: str, advance: Callable[[str], None] = lambda line: None
) -> None:
    """Run `python -m module` and wait for its end. If this process is killed, that one ends, too.

    Args:
        module: a module whose `__main__` part does the work.
        arguments: its command line.
        purpose: what it does, as a verb and an object, for the error message.
        advance: a function that is called with each line that the module prints.

    Raises:
        BackendError: the process failed. The message holds the last line of its standard error.
    """
    command = [sys.executable, "-m", parent_process.__name__, str(os.getpid()), module.__name__, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stderr is not None
        try:
            for line in child.stdout:
                advance(line.strip())
            errors = child.stderr.read().strip().splitlines()
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        reason = errors[-1] if errors else f"the process ended with status {child.returncode}"
        raise BackendError(f"cannot {purpose} on this machine: {reason}")
