"""Scripts of the repository as modules, for tests of their functions."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_script(file: Path) -> ModuleType:
    """Import a script that no package has, such as docs/generate.py, under a name that no other module has."""
    spec = importlib.util.spec_from_file_location(f"script_{file.parent.name}_{file.stem}", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Dataclasses look their module up.
    spec.loader.exec_module(module)
    return module
