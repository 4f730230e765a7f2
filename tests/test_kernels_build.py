"""`make test` on a machine without a C++ compiler: a line, and no failure."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.process
@pytest.mark.parametrize(("script", "option"), [("install.sh", "--kernels"), ("sanitize.sh", "")])
def test_without_a_compiler_one_line_says_so(script: str, option: str, tmp_path: Path) -> None:
    command = [f".ci/{script}", str(tmp_path), option]
    environment = os.environ | {"CXX": "no-such-compiler"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout == ""
    assert result.stderr.startswith("no C++ compiler (no-such-compiler): ") and result.stderr.count("\n") == 1
    assert result.stderr.endswith("install g++\n") and not list(tmp_path.iterdir())
