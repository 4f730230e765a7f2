"""A process that ends with the one that started it, also if that one is killed and can end nothing itself.

Only Linux has this. Elsewhere such a process runs on to its end.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent's thread ends
_LIBC = ctypes.CDLL(None)  # Loaded here, since a fork of a process with threads should load nothing.


def end_with(parent: int) -> None:
    """Have this process killed as soon as its parent has ended.

    Args:
        parent: the number of the process that started this one.
    """
    if sys.platform == "linux":
        _LIBC.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # It has ended already.
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run a module as `python -m` does, in a process that ends with its parent.

    The arguments are the number of the parent, the name of the module, and the module's own arguments.
    """
    _, parent, name, *arguments = sys.argv
    end_with(int(parent))
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
