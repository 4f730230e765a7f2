"""ONNX Runtime is imported in one place, where its telemetry is switched off first."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCES = [file for folder in ("runtime", "specc") for file in (ROOT / folder).rglob("*.py")]
DECODE = """
import os, sys
sys.addaudithook(lambda event, args: event == "import" and args[0] == "onnxruntime" and print(
    os.environ.get("ORT_DISABLE_TELEMETRY")))
import specc
print(len(specc.load(sys.argv[1]).generate([5, 6, 7], 4, ignore_eos=True).token_ids))
"""


def imported(file: Path) -> set[str]:
    """Return the packages that a module imports, wherever in it."""
    names: set[str] = set()
    text = file.read_text(encoding="utf-8")
    if "onnxruntime" not in text:  # To parse every file takes a second.
        return names
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(str(node.module).split(".")[0])
    return names


def test_no_other_module_imports_onnx_runtime() -> None:
    importers = [file.relative_to(ROOT).as_posix() for file in SOURCES if "onnxruntime" in imported(file)]
    assert importers == ["runtime/engines/onnx_runtime.py"]


@pytest.mark.process
@pytest.mark.parametrize(
    ("variables", "at_import"),
    [({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "1"), ({"SPECC_TELEMETRY": "0"}, "1")],
)
def test_telemetry_is_off_before_the_import_and_writes_no_device_id(
    variables: dict[str, str], at_import: str, tmp_path: Path
) -> None:
    """Without the variable, ONNX Runtime 1.32 leaves a device id and a database in the home directory."""
    rest = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    environment = {**rest, "HOME": str(tmp_path), "SPECC_CACHE": "off", **variables}
    environment.pop("XDG_CACHE_HOME", None)
    argv = [sys.executable, "-c", DECODE, str(ROOT / "tests/bundles/schema-1")]
    result = subprocess.run(argv, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert result.stdout.split() == [at_import, "4"], result.stderr
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.process
def test_telemetry_is_left_as_it_is_for_those_who_ask_for_it() -> None:
    """ONNX Runtime is a double here, so that nothing is sent."""
    code = (
        "import os, sys, types\n"
        "sys.modules['onnxruntime'] = types.SimpleNamespace(\n"
        "    InferenceSession=None, set_default_logger_severity=lambda level: None)\n"
        "import specc.runtime.engines.onnx_runtime\n"
        "print(os.environ.get('ORT_DISABLE_TELEMETRY'))"
    )
    rest = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    for requests, expected in (("1", "None"), ("", "1")):
        environment = {**rest, "SPECC_TELEMETRY": requests}
        result = subprocess.run([sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True)
        assert result.stdout.strip() == expected, result.stderr
