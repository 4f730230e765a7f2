"""Run a module that measures in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from specc.runtime.errors import BackendError


def apart(module: str, *arguments: str, advance: Callable[[str], None] = lambda line: None) -> None:
    """Run a module that measures in a process of its own, which holds neither torch nor the model.

    advance: told of each line that it prints. Raises BackendError.
    """
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        try:
            for line in child.stdout:
                advance(line.strip())
            said = child.stderr.read().strip().splitlines() or ["it said nothing"]
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        raise BackendError(f"the recipes cannot be measured here: {said[-1]}")
