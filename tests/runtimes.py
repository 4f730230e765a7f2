"""Replay a bundle's golden outputs with old and new releases of ONNX Runtime, each in an environment of its own.

    python tests/runtimes.py build/demo.specc 1.20.1 1.22.1 1.32.0

An environment has the runtime only, without torch. Recipes with an engine that needs a newer release are left out,
by what the engines say themselves. The exit status is 1 if a replay fails.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from specc.runtime.bundle import open_bundle
from specc.runtime.engines.versions import numbers

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / "build" / "runtimes"


def make_environment(version: str) -> Path:
    """Return the interpreter of an environment with specc's runtime and one release of ONNX Runtime."""
    folder = ENVIRONMENTS / version
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--editable", str(ROOT), f"onnxruntime=={version}"]
    subprocess.run(install, check=True)
    return python


def recipes(bundle: Path, version: str) -> list[str]:
    """Return the recipes whose engines all run with a release."""
    manifest = open_bundle(bundle).manifest
    least = {engine.name: engine.needs.get("onnxruntime", "") for engine in manifest.engines}
    return [
        recipe.name
        for recipe in manifest.recipes
        if all(numbers(least[name]) <= numbers(version) for name in ("decode", "prefill", *recipe.engine_names))
    ]


def main() -> int:
    """Replay by each release, and return the exit status."""
    bundle, *versions = sys.argv[1:]
    status = 0
    for version in versions:
        names = recipes(Path(bundle), version)
        print(f"== ONNX Runtime {version}: {', '.join(names)}", flush=True)
        command = [str(make_environment(version)), "-m", "specc", "test", bundle, "--recipe", ",".join(names)]
        status |= int(subprocess.run(command).returncode != 0)
    return status


if __name__ == "__main__":
    sys.exit(main())
