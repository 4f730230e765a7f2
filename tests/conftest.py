"""The modules beside this one are importable from every test; hypothesis tries the same examples on every machine.

`model` is a tiny model's directory, `bundle` the same compiled: once a session, for the tests that ask for them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import specc  # noqa: F401  before tests/ is on the path, where a folder has this name

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("specc", derandomize=True, deadline=None)
settings.load_profile("specc")

PROMPTS = ("def wrap(text, width=70):\n    return", "import os, sys\nimport os, sys\nimport", "Ünïcode: ")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's cache directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny model."""
    from tiny import save_model

    return save_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def bundle(model: Path) -> Path:
    """The tiny model compiled with three recipes. Tests copy it before they change a file."""
    from specc.compiler import Options, compile_bundle

    prompts = model.parent / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS), encoding="utf-8")
    output, recipes = model.parent / "tiny.specc", ("plain", "prompt-lookup", "early-exit")
    compile_bundle(Options(str(model), output, recipes, prompts=prompts, golden_tokens=24))
    return output
