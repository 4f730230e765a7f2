"""Compile every recipe for a model and measure all of them: the table with the winners and the losers.

    python benchmarks/all_recipes.py demo                      # examples/pycode-10m with its assistant and its head
    python benchmarks/all_recipes.py smollm2 --model SMOLLM2   # a directory or GGUF file of SmolLM2-135M-Instruct
    python benchmarks/all_recipes.py demo --limit 1 --max-new-tokens 8 --rounds 1 --recipe plain,superposed  # a trial
    python benchmarks/all_recipes.py demo --write              # and put the table into docs/measurements.md

The recipes are measured in groups, each beside plain decoding in turns. The report of each group is kept beside the
bundle, so a run that was ended goes on where it was: with the same options, groups that have a report and a bundle that
has the recipes are not made again. `--again` makes all anew.

A recipe whose needs a model cannot meet is left out, and a line says which and why. For example, no smaller model has
SmolLM2's tokenizer. The demo model's assistant is its untuned model too. So the text of proxy tuning is that of fs-gen,
and only its speed is its own. Recipes run without the guard, which would hide losers. Nothing else should run. The last
thing that is printed is a table in Markdown, and for each recipe that loses a line that says what bounds it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # The folder is not a package.

from real import PROMPTS, ROOT, find_model, run

sys.path.insert(0, str(ROOT / "docs"))

from generate import updated

from specc.recipes import METHODS, Method
from specc.recipes.choice import NEEDS

EXAMPLES, PAGE = ROOT / "examples", ROOT / "docs" / "measurements.md"
GROUP = 8  # recipes that are measured together


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
        return "no head of their kinds is trained for the model"
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


def compiled_recipes(bundle: Path) -> set[str]:
    """Return the names of the recipes of a bundle; none if it is not there."""
    manifest = bundle / "manifest.json"
    if not manifest.exists():
        return set()
    return {recipe["name"] for recipe in json.loads(manifest.read_text(encoding="utf-8"))["recipes"]}


def measure(bundle: Path, names: Sequence[str], options: Sequence[object], again: bool) -> list[dict[str, Any]]:
    """Measure recipes in groups, and return the report of `specc bench --json` of each group.

    Args:
        bundle: the bundle.
        names: the recipes.
        options: options of `specc bench`.
        again: whether groups that have a report are measured too.
    """
    others = [name for name in names if name != "plain"]
    groups = [others[start : start + GROUP] for start in range(0, len(others), GROUP)]
    manifest = (bundle / "manifest.json").read_bytes()
    reports = []
    for number, group in enumerate(groups, 1):
        key = hashlib.sha256(manifest + json.dumps([group, *map(str, options)]).encode()).hexdigest()[:16]
        file = bundle.with_name(f"{bundle.name}.{key}.json")
        if again or not file.exists():
            print(f"\ngroup {number} of {len(groups)}", flush=True)
            text = run("bench", bundle, "--recipe", ",".join(group), "--no-guard", "--json", *options)
            file.write_text(text, encoding="utf-8")
        reports.append(json.loads(file.read_text(encoding="utf-8")))
    return reports


def merged(reports: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of all groups, with those of plain decoding once: of the group in which it was in the middle."""
    speeds = sorted(
        (row["tokens_per_second"], number)
        for number, report in enumerate(reports)
        for row in report["rows"]
        if row["recipe"] == "plain" and row["category"] == report["rows"][-1]["category"]
    )
    middle = speeds[len(speeds) // 2][1]
    return [
        row
        for number, report in enumerate(reports)
        for row in report["rows"]
        if row["recipe"] != "plain" or number == middle
    ]


def markdown(table: Sequence[Mapping[str, Any]]) -> str:
    """Draw rows of `specc bench --json`: all recipes, the fastest first, and the categories apart.

    The figures of categories are multiples of plain decoding's speed. `changed` is the share of tokens that are not
    those of plain decoding. The last three columns are shares of the time.
    """
    rows = {(row["recipe"], row["category"]): row for row in table}
    categories = list(dict.fromkeys(row["category"] for row in table))
    whole, parts = categories[-1], categories[:-1]
    lines = [
        f"| recipe | tokens/s | x plain | {' | '.join(parts)} | tokens a step | changed | target | draft | host |",
        "| --- " * (8 + len(parts)) + "|",
    ]
    for recipe in by_speed(table):
        row = rows[recipe, whole]
        cells = [f"{row['tokens_per_second']:.1f}", f"{row['speedup']:.2f}"]
        cells += [f"{rows[recipe, part]['speedup']:.2f}" for part in parts]
        cells += [f"{row['mean_acceptance_length'] or 1.0:.2f}", f"{row['changed']:.0%}"]
        cells += [f"{share:.0%}" for share in shares(row)]
        lossy = "" if recipe not in METHODS or METHODS[recipe].lossless else " (lossy)"
        lines.append(f"| `{recipe}`{lossy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_speed(table: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the recipes, the fastest on all prompts first."""
    whole = table[-1]["category"]
    overall = [row for row in table if row["category"] == whole]
    return [row["recipe"] for row in sorted(overall, key=lambda row: -row["speedup"])]


def shares(row: Mapping[str, Any]) -> tuple[float, float, float]:
    """Return the shares of the time in the target, in the engines of the drafter, and on the host."""
    target, host = row["verify_share"], row["host_share"]
    return target, max(0.0, 1 - target - host), host


def bounds(table: Sequence[Mapping[str, Any]]) -> str:
    """Say of each recipe that is slower than plain decoding, and has a paper, what its time goes to."""
    whole = table[-1]["category"]
    rows = {row["recipe"]: row for row in table if row["category"] == whole}
    losers = [name for name in by_speed(table) if rows[name]["speedup"] < 1 and name in METHODS and METHODS[name].paper]
    return "\n".join(bound(rows[name]) for name in losers)


def bound(row: Mapping[str, Any]) -> str:
    """Say how long a recipe takes beside plain decoding, and in what. The parts add up to the whole."""
    times = 1 / row["speedup"] if row["speedup"] else float("inf")
    target, draft, host = (times * share for share in shares(row))
    largest = {target: "the target's steps", draft: "the draft's engines", host: "the host"}[max(target, draft, host)]
    return (
        f"- `{row['recipe']}` takes {times:.2f} times as long as plain decoding, most of it in {largest}: "
        f"{target:.2f} in the target, {draft:.2f} in the draft's engines, {host:.2f} on the host. "
        f"A step with a draft gives {row['mean_acceptance_length'] or 1.0:.2f} tokens."
    )


def note(report: Mapping[str, Any]) -> str:
    """Say under which conditions the table was measured."""
    machine, settings = report["machine"], report["settings"]
    return (
        f"{report['date'][:10]}: {settings['count']} prompts, {settings['max_new_tokens']} tokens, "
        f"{settings['rounds']} rounds, without the guard, {machine['threads']} threads of {machine['cpu']}, "
        f"ONNX Runtime {machine['onnxruntime']}."
    )


def absent(reasons: Mapping[str, str]) -> str:
    """Say which recipes are left out, and why. Empty if there are none."""
    lines = [
        f"Left out, since {reason}: {', '.join(f'`{name}`' for name, other in reasons.items() if other == reason)}."
        for reason in sorted(set(filter(None, reasons.values())))
    ]
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=SETTINGS)
    parser.add_argument(
        "--model", type=Path, help="a directory or a GGUF file; default: that of make demo or make real"
    )
    parser.add_argument("--output", type=Path, help="the bundle; default: build/all-SETTING.specc")
    parser.add_argument("--recipe", default="", help="these recipes alone, with commas")
    parser.add_argument("--limit", type=int, help="prompts of each category at most")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="compile and measure what is there already, too")
    parser.add_argument("--write", action="store_true", help="write the result into docs/measurements.md")
    return parser.parse_args()


def main() -> None:
    """Compile the recipes and measure them as far as that is not done, and print the table."""
    arguments = parse()
    setting = SETTINGS[arguments.setting]
    names = arguments.recipe.split(",") if arguments.recipe else list(METHODS)
    reasons = {name: missing(METHODS[name], setting) for name in names}
    present = [name for name in names if not reasons[name]]
    bundle = arguments.output or ROOT / "build" / f"all-{arguments.setting}.specc"
    if arguments.again or not compiled_recipes(bundle) >= set(present):
        bundle.parent.mkdir(parents=True, exist_ok=True)
        model = arguments.model or (EXAMPLES / "pycode-10m" if arguments.setting == "demo" else find_model())
        compile_all(model, setting, present, bundle)
    options: list[object] = ["--prompts", PROMPTS, "--max-new-tokens", arguments.max_new_tokens]
    options += ["--rounds", arguments.rounds, *(["--limit", arguments.limit] if arguments.limit else [])]
    options += ["--chat"] if setting.chat else []
    reports = measure(bundle, present, options, arguments.again)
    table = merged(reports)
    losers = bounds(table)
    parts = [
        markdown(table),
        note(reports[0]),
        absent(reasons),
        f"What bounds those that lose:\n\n{losers}" if losers else "",
    ]
    result = "\n\n".join(filter(None, parts))
    print("\n" + result)
    if arguments.write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(updated(page, {f"all-recipes-{arguments.setting}": f"\n{result}\n"}), encoding="utf-8")


if __name__ == "__main__":
    main()
