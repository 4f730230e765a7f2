"""Distil drafts of several depths, and compare their predicted speed with the measured one.

    python benchmarks/draft_shapes.py examples/pycode-10m build/shapes --prompts a.jsonl b.jsonl --data code.py
    python benchmarks/draft_shapes.py MODEL build/shapes --prompts a.jsonl b.jsonl --layers 1,2,3 --minutes 10

Decoding Speculative Decoding (Yan et al. 2024, arXiv:2402.01528) says that the time of a draft model decides more than
its quality, so wide and shallow drafts win; and that two numbers predict the speed: the time of a draft step, and how
often a drafted token is accepted. Each draft here keeps the model's width and some of its layers. It is distilled for
the same time. `specc tune` predicts its speed from its step's cost and its acceptance on one half of the prompts, and
`specc bench` measures the speed on the other half.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RECIPE = "draft-model"
ANSWERED = 400  # prompts that the model answers for a distillation


def run(*arguments: object) -> str:
    """Run a command of specc and return what it prints."""
    command = [sys.executable, "-m", "specc", *map(str, arguments)]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def measure(
    model: Path,
    directory: Path,
    layers: int,
    minutes: float,
    data: Sequence[Path],
    prompts: Sequence[Path],
    rounds: int,
) -> dict[str, Any]:
    """Distil a draft and compile it, unless both are there. Return its predicted and its measured speed-up.

    Args:
        model: the model that the draft is cut from.
        directory: where drafts and bundles are written.
        layers: of the draft.
        minutes: of its distillation.
        data: text or prompts to distil on; none takes those that ship with specc.
        prompts: files of prompts: of the prediction, and of the measurement.
        rounds: of the measurement.
    """
    draft, bundle = directory / f"draft-{layers}", directory / f"draft-{layers}.specc"
    if not draft.exists():
        text = [part for file in data for part in ("--data", file)]
        length = ["--draft-layers", layers, "--minutes", minutes, "--prompts", ANSWERED]
        run("train", model, "--recipe", RECIPE, "-o", draft, *length, *text)
    if not bundle.exists():
        run("compile", model, "-o", bundle, "--recipe", RECIPE, "--assistant-model", draft)
    plan = json.loads(run("tune", bundle, "--prompts", prompts[0], "--json"))
    options = ["--recipe", RECIPE, "--prompts", prompts[1], "--rounds", rounds, "--no-guard", "--json"]
    report = json.loads(run("bench", bundle, *options))
    row = next(row for row in report["rows"] if row["recipe"] == RECIPE)
    return {"layers": layers, "predicted": plan["predicted"][RECIPE], "measured": row["speedup"], "row": row}


def order(rows: Sequence[Mapping[str, Any]], key: str) -> list[int]:
    """Return the layers of the drafts, the fastest first by this figure."""
    return [row["layers"] for row in sorted(rows, key=lambda row: -row[key])]


def main() -> None:
    """Print a row for each draft, and the two orders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("directory", type=Path, help="where drafts, bundles and draft_shapes.json are written")
    parser.add_argument("--layers", default="1,2,4,8", help="of the drafts, with commas")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each distillation")
    parser.add_argument("--data", type=Path, action="append", default=[], help="text to distil on; may be repeated")
    parser.add_argument(
        "--prompts", type=Path, nargs=2, required=True, help="of the prediction, and of the measurement"
    )
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    rows = [
        measure(args.model, args.directory, int(count), args.minutes, args.data, args.prompts, args.rounds)
        for count in args.layers.split(",")
    ]
    (args.directory / "draft_shapes.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    table = Table("layers", "predicted", "measured", "tokens a step", "drafted tokens accepted at 1, 2, …")
    for row in rows:
        rates = row["row"]["acceptance_per_position"] or []
        length = row["row"]["mean_acceptance_length"] or 1.0
        positions = ", ".join(f"{rate:.0%}" for rate in rates[:4])
        table.add_row(
            str(row["layers"]), f"{row['predicted']:.2f}", f"{row['measured']:.2f}", f"{length:.2f}", positions
        )
    console = Console(soft_wrap=True)
    console.print(table)
    for key in ("predicted", "measured"):
        console.print(f"{key}: layers {', '.join(map(str, order(rows, key)))}, the fastest first")


if __name__ == "__main__":
    main()
