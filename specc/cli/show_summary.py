"""The summary of a bundle that `specc show` prints: what it is, how fast it is, and whether to trust it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from specc.cli import console
from specc.cli.compile import provisional_line

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specc.runtime.bundle import Bundle
    from specc.runtime.manifest import Manifest

LIBRARIES = {"specc": "specc-kernels", "com.microsoft": "onnxruntime"}  # by the domains of their operators
PACKAGES = ("specc", "torch", "onnxruntime")  # Their versions are in the summary. `--all` shows the others too.


def summary(bundle: Bundle, total_bytes: int) -> RenderableType:
    """Draw some ten lines about a bundle.

    Args:
        bundle: the bundle.
        total_bytes: the size of all its files.
    """
    from specc.runtime.engines import native_code

    manifest, table = bundle.manifest, console.facts()
    model, native = manifest.model, native_code(engine.backend for engine in manifest.engines)
    backends = ", ".join(dict.fromkeys(engine.backend for engine in manifest.engines))
    table.add_row("model", f"{model.source}, revision {model.revision}, {model.layers} layers")
    table.add_row("weights", _weights(bundle))
    table.add_row("context", f"{model.context} tokens, prompt and answer together")
    table.add_row("default", default_recipe(manifest))
    for word, names in recipes_by_exactness(manifest).items():
        table.add_row(word, ", ".join(names))
    code = f"native code by {', '.join(native)} runs only with --allow-native-code" if native else "no native code"
    table.add_row("engines", f"{len(manifest.engines)} by {backends}, {_lanes(manifest)}; {code}")
    if libraries := needs(manifest):
        table.add_row("needs", libraries)
    table.add_row("golden", f"{_golden_cases(bundle)}, near-tie tolerance {manifest.near_tie_tolerance:g}")
    table.add_row("compiled", _compiled(bundle))
    title = console.text(str(bundle.path), "bold").append(f"  {console.size(total_bytes)}", "")
    if manifest.provisional:
        return console.stack(title, table, console.text(provisional_line(bundle.path), "yellow"))
    return console.stack(title, table)


def default_recipe(manifest: Manifest) -> str:
    """Name the default recipe, and say how fast it was, where and on how many prompts."""
    from specc.tuning.plan import TunePlan

    name, plan = manifest.default_recipe, TunePlan.of(manifest)
    if plan and plan.recipe == name:
        prompts = _count(plan.prompts, "prompt")
        return f"{name}, {plan.measured_speedup:.2f} x plain decoding on {prompts} (specc tune)"
    row: Mapping[str, Any] = next((row for row in manifest.measured if row.get("recipe") == name), {})
    if name == "plain" or not isinstance(row.get("speedup"), (int, float)):
        return f"{name}, one token a step" if name == "plain" else f"{name}, not measured"
    counts = [row.get(verdict) for verdict in ("identical", "near-tie", "lossy", "diverged")]
    cases = sum(count for count in counts if isinstance(count, int))
    return f"{name}, {row['speedup']:.2f} x plain decoding on {_count(cases, 'golden prompt')}"


def recipes_by_exactness(manifest: Manifest) -> dict[str, list[str]]:
    """Return the names of the recipes, by whether their output is that of plain decoding."""
    from specc.runtime.width_invariance import is_near

    groups: dict[str, list[str]] = {"lossless": [], "near": [], "lossy": []}
    for recipe in manifest.recipes:
        word = "near" if recipe.lossless and is_near(manifest, recipe) else "lossless"
        groups[word if recipe.lossless else "lossy"].append(recipe.name)
    return {word: names for word, names in groups.items() if names}


def needs(manifest: Manifest) -> str:
    """Name the libraries that the engines need, with their least versions. An operator stands for its library.

    Bundles of schema 1 do not say what they need.
    """
    from specc.runtime.engines.versions import numbers

    least: dict[str, str] = {}
    for engine in manifest.engines:
        for name, version in engine.needs.items():
            library = LIBRARIES.get(name.partition("::")[0], name)
            if numbers(version) and numbers(version) >= numbers(least.get(library, "")):
                least[library] = version
    return ", ".join(f"{name} {version} or newer" for name, version in least.items())


def _lanes(manifest: Manifest) -> str:
    """Say how many requests one run takes at most."""
    most = max(engine.block.lanes for engine in manifest.engines)
    return _count(most, "lane") if most > 1 else "no lanes"


def _weights(bundle: Bundle) -> str:
    """Write the type and size of the weights, and how they were rounded before the compile."""
    manifest = bundle.manifest
    decode = next((engine for engine in manifest.engines if engine.name == "decode"), manifest.engines[0])
    text = f"{decode.block.weights}, {console.size(manifest.files[manifest.weights].bytes)}"
    rounded = manifest.extra.get("weights_rounded_from")
    if not isinstance(rounded, Mapping) or "method" not in rounded:
        return text
    types = rounded.get("types")
    names = f" {', '.join(map(str, types))}" if isinstance(types, Mapping) else ""
    return f"{text}; rounded before the compile: {rounded['method']}{names}"


def _golden_cases(bundle: Bundle) -> str:
    """Count the golden cases: a line each."""
    from specc.exactness import golden

    if golden.FILE not in bundle.manifest.files:
        return "none"
    lines = bundle.file(golden.FILE).read_bytes().splitlines()
    return _count(sum(bool(line.strip()) for line in lines), "case")


def _compiled(bundle: Bundle) -> str:
    """Say when the bundle was compiled, and by which versions.

    Manifests of older versions hold no date. The date of the file of weights stands in for it.
    """
    from specc.runtime.manifest import COMPILED_AT

    manifest = bundle.manifest
    date = manifest.extra.get(COMPILED_AT)
    if isinstance(date, str):
        date = date[: len("2026-11-26")]
    else:
        date = time.strftime("%Y-%m-%d", time.gmtime(bundle.file(manifest.weights).stat().st_mtime))
    versions = [f"{name} {manifest.versions[name]}" for name in PACKAGES if name in manifest.versions]
    return f"{date} by {', '.join(versions)}"


def _count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
