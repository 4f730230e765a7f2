"""What works without torch: every verb but `compile`, and the runtime alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from shell import specc

from specc.runtime.extras import package

pytestmark = pytest.mark.model

PROMPT = "def wrap(text, width=70):\n"
BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnxscript", "onnx_ir", "safetensors"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
"""


def test_the_verbs_work(bundle: Path, model: Path) -> None:
    code = BLOCK + "from specc.cli import main; main(sys.argv[1:])"

    def run(*argv: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True)

    argv = ("generate", bundle, "--prompt", PROMPT, "--max-new-tokens", 20, "--json")
    assert json.loads(run(*argv).stdout)["token_ids"] == specc(*argv).json["token_ids"]
    assert json.loads(run("test", bundle, "--json").stdout)["diverged"] == 0
    assert json.loads(run("show", bundle, "--json").stdout) == specc("show", bundle, "--json").json
    assert json.loads(run("recipes", "--json").stdout) == specc("recipes", "--json").json
    for result in (run("compile", model, "-o", "x"), run("test", bundle, "--reference", model)):
        assert result.returncode == 2
        assert result.stdout == ""
        assert result.stderr.splitlines()[-1].startswith("specc: error: this needs the compiler")
        assert result.stderr.endswith(f"pip install {package('compile')}\n")


def test_the_runtime_works_alone(bundle: Path, tmp_path: Path) -> None:
    """The law of the layers: `runtime/` in an otherwise empty package replays the golden file."""
    (tmp_path / "specc").mkdir()
    (tmp_path / "specc" / "__init__.py").touch()
    runtime = Path(sys.modules["specc.runtime"].__path__[0])
    shutil.copytree(runtime, tmp_path / "specc" / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    code = BLOCK + (
        "import json\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]\n"
        "sys.path[:] = [sys.argv[1], *(p for p in sys.path if '__editable__' not in p)]\n"
        "from specc.runtime.bundle import open_bundle\n"
        "from specc.runtime.session import open_session\n"
        "assert sys.modules['specc.runtime'].__file__.startswith(sys.argv[1])\n"
        "session, cases = open_session(open_bundle(sys.argv[2])), open(sys.argv[2] + '/golden.jsonl').readlines()\n"
        "for case in map(json.loads, cases):\n"
        "    for recipe in session.bundle.manifest.recipes:\n"
        "        got = session.generate(case['prompt_ids'], len(case['token_ids']), recipe=recipe.name)\n"
        "        assert got.token_ids == case['token_ids']\n"
        "ours = sorted(m for m in sys.modules if m.startswith('specc') and not m.startswith('specc.runtime'))\n"
        "print(len(cases), ours)\n"
    )
    argv = [sys.executable, "-I", "-c", code, str(tmp_path), str(bundle)]
    result = subprocess.run(argv, capture_output=True, text=True, cwd=tmp_path)
    assert (result.stdout, result.stderr) == ("3 ['specc']\n", "")
