"""The modules that Node and the browser share: what `node --test` says of them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("javascript")


@pytest.mark.process
def test_the_tests_of_the_modules_pass() -> None:
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    command = ["node", "--test", "--test-reporter", "tap", *sorted(str(file) for file in TESTS.glob("*.test.js"))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout
    # A file whose tests are not seen would pass, too.
    counts = dict(line[2:].rsplit(" ", 1) for line in result.stdout.splitlines() if line.startswith("# "))
    assert int(counts["pass"]) > 30 and counts["skipped"] == counts["todo"] == "0", result.stdout
