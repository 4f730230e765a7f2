"""Compile every recipe for a model and measure all of them: the table with the winners and the losers.

    python benchmarks/all_recipes.py demo                      # examples/pycode-10m with its assistant and its head
    python benchmarks/all_recipes.py smollm2 --model SMOLLM2   # a directory or GGUF file of SmolLM2-135M-Instruct
    python benchmarks/all_recipes.py demo --limit 1 --max-new-tokens 8 --rounds 1 --recipe plain,superposed  # a trial
    python benchmarks/all_recipes.py demo --bundle all.specc   # a bundle that is there already

A recipe whose needs a model cannot meet is left out, and a line says which and why. For example, no smaller model has
SmolLM2's tokenizer. The demo model's assistant is its untuned model too. So the text of proxy tuning is that of fs-gen,
and only its speed is its own. Recipes run without the guard, which would hide losers. Nothing else should run. The last
thing that is printed is a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # The folder is not a package.

from real import PROMPTS, ROOT, find_model, run

from specc.recipes import METHODS, Method
from specc.recipes.choice import NEEDS

EXAMPLES = ROOT / "examples"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The files of a model that recipes may need: other models, a corpus and heads.

    Attributes:
        options: options of `specc compile`, by the names that `Method.needs` has for them.
        heads: directories of trained heads, by their architectures.
        chat: whether prompts are messages for the model's chat template.
        reasons: why an option is not there, by its name.
    """

    options: Mapping[str, Path]
    heads: Mapping[str, Path]
    chat: bool
    reasons: Mapping[str, str]


SETTINGS = {
    "demo": Setting(
        options={
            "assistant-model": EXAMPLES / "pycode-1m",
            "untuned-model": EXAMPLES / "pycode-1m",
            "corpus": ROOT / "runtime",
        },
        heads={"eagle3": EXAMPLES / "heads" / "eagle3-pycode-10m"},
        chat=False,
        reasons={},
    ),
    "smollm2": Setting(
        options={"corpus": ROOT / "docs"},
        heads={"eagle3": EXAMPLES / "heads" / "eagle3-smollm2"},
        chat=True,
        reasons=dict.fromkeys(
            ("assistant-model", "untuned-model"), "no smaller model has the tokenizer of SmolLM2-135M-Instruct"
        ),
    ),
}


def missing(method: Method, setting: Setting) -> str:
    """Say what a recipe needs that a model does not have; empty if it can be compiled."""
    for need in method.needs:
        if need in NEEDS and need not in setting.options:
            return setting.reasons.get(need, f"no --{need}")
    if method.head and method.head not in setting.heads:
        return f"no head of the architecture {method.head} is trained for it"
    return ""


def compile_all(model: Path, setting: Setting, names: Sequence[str], output: Path) -> dict[str, Any]:
    """Compile recipes, and return the report of the compile."""
    needs = {need for name in names for need in METHODS[name].needs}
    heads = {METHODS[name].head for name in names} - {""}
    options = [word for name, value in setting.options.items() if name in needs for word in (f"--{name}", value)]
    options += [word for name, head in setting.heads.items() if name in heads for word in ("--head", head)]
    size = ("--max-seq-len", 1024, "--golden-tokens", 16)
    recipes = ("--recipe", ",".join(names))
    report: dict[str, Any] = json.loads(
        run("compile", model, "-o", output, "--overwrite", "--json", *size, *recipes, *options)
    )
    return report


def markdown(report: Mapping[str, Any]) -> str:
    """Draw the report of `specc bench --json`: all recipes, the fastest first, and the categories apart.

    The figures of categories are multiples of plain decoding's speed. `changed` is the share of tokens that are not
    those of plain decoding.
    """
    rows = {(row["recipe"], row["category"]): row for row in report["rows"]}
    categories = list(dict.fromkeys(row["category"] for row in report["rows"]))
    whole, parts = categories[-1], categories[:-1]
    lines = [
        f"| recipe | tokens/s | x plain | {' | '.join(parts)} | tokens a step | changed |",
        "| --- " * (5 + len(parts)) + "|",
    ]
    recipes = dict.fromkeys(row["recipe"] for row in report["rows"])
    for recipe in sorted(recipes, key=lambda name: -rows[name, whole]["speedup"]):
        row = rows[recipe, whole]
        cells = [f"{row['tokens_per_second']:.1f}", f"{row['speedup']:.2f}"]
        cells += [f"{rows[recipe, part]['speedup']:.2f}" for part in parts]
        cells += [f"{row['mean_acceptance_length'] or 1.0:.2f}", f"{row['changed']:.0%}"]
        lossy = "" if recipe not in METHODS or METHODS[recipe].lossless else " (lossy)"
        lines.append(f"| `{recipe}`{lossy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def note(report: Mapping[str, Any]) -> str:
    """Say under which conditions the table was measured."""
    machine, settings = report["machine"], report["settings"]
    return (
        f"{settings['count']} prompts, {settings['max_new_tokens']} tokens, {settings['rounds']} rounds, without the "
        f"guard, {machine['threads']} threads of {machine['cpu']}, ONNX Runtime {machine['onnxruntime']}."
    )


def main() -> None:
    """Compile the recipes unless a bundle is named, measure them, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument(
        "--model", type=Path, help="a directory or a GGUF file; default: that of make demo or make real"
    )
    parser.add_argument("--bundle", type=Path, help="measure this bundle, and compile none")
    parser.add_argument("--output", type=Path, help="the bundle to write; default: build/all-SETTING.specc")
    parser.add_argument("--recipe", default="", help="these recipes alone, with commas")
    parser.add_argument("--limit", type=int, help="prompts of each category at most")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    setting = SETTINGS[arguments.setting]
    names = arguments.recipe.split(",") if arguments.recipe else list(METHODS)
    reasons = {name: missing(METHODS[name], setting) for name in names}
    bundle = arguments.bundle
    if bundle is None:
        model = arguments.model or (EXAMPLES / "pycode-10m" if arguments.setting == "demo" else find_model())
        bundle = arguments.output or ROOT / "build" / f"all-{arguments.setting}.specc"
        bundle.parent.mkdir(parents=True, exist_ok=True)
        compile_all(model, setting, [name for name in names if not reasons[name]], bundle)
    for reason in sorted(set(filter(None, reasons.values()))):
        print(f"left out, since {reason}: {', '.join(name for name in names if reasons[name] == reason)}")
    size = ["--max-new-tokens", arguments.max_new_tokens, "--rounds", arguments.rounds]
    size += ["--limit", arguments.limit] if arguments.limit else []
    chat = ("--chat",) if setting.chat else ()
    recipes = arguments.recipe or "all"
    bench = ("bench", bundle, "--recipe", recipes, "--prompts", PROMPTS, "--no-guard", "--json")
    report = json.loads(run(*bench, *chat, *size))
    print("\n" + markdown(report) + "\n\n" + note(report))


if __name__ == "__main__":
    main()
