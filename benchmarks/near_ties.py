"""Count near-ties and divergences of every recipe against plain decoding, by the type of a model's weights.

    python benchmarks/near_ties.py MODEL build/near-ties                          # 50 prompts, 64 tokens; half an hour
    python benchmarks/near_ties.py MODEL build/near-ties --prompts 5 --dtypes bf16,int4

For each type the model is compiled once with the default recipes. The prompts that ship with specc for training become
golden cases, decoded plainly by the bundle itself, and `specc test` replays them by every recipe. The bundle also has
the golden cases of its compile, which transformers decoded.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from specc.exactness import golden
from specc.runtime.bundle import open_bundle
from specc.training.prompts import shipped_prompts

COLUMNS = ("identical", "near_ties", "diverged")
SEED = 0  # of the choice of prompts


def run(*arguments: object) -> str:
    """Run a command of specc and return what it prints. A status of 1 says that a replay diverged."""
    command = [sys.executable, "-m", "specc", *map(str, arguments)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if result.returncode > 1:
        sys.exit(f"specc {arguments[0]} failed")
    return result.stdout


def test(model: Path, directory: Path, dtype: str, prompts: Path, count: int, tokens: int) -> Mapping[str, Any]:
    """Compile a bundle if it is not there, add golden cases if it has not enough, and return the report of the test."""
    bundle = directory / f"{dtype}.specc"
    if not bundle.exists():
        run("compile", model, "-o", bundle, "--dtype", dtype)
    if len(golden.cases_of(open_bundle(bundle))) < count:
        run("golden", "add", bundle, "--prompts", prompts, "--golden-tokens", tokens)
    report: dict[str, Any] = json.loads(run("test", bundle, "--json"))
    return report


def main() -> None:
    """Test every type, and print a row for each recipe that has a near-tie or a divergence, and for each type."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("directory", type=Path, help="where bundles, prompts and near_ties.json are written")
    parser.add_argument("--dtypes", default="fp32,bf16,int4")
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()
    args.directory.mkdir(parents=True, exist_ok=True)
    prompts = args.directory / "prompts.jsonl"
    lines = [json.dumps({"prompt": text}) for text in shipped_prompts(args.prompts, SEED)]
    prompts.write_text("\n".join(lines) + "\n", encoding="utf-8")
    table, reports = Table("weights", "recipe", "cases", *COLUMNS), {}
    for dtype in args.dtypes.split(","):
        report = reports[dtype] = test(args.model, args.directory, dtype, prompts, args.prompts, args.tokens)
        for row in report["recipes"]:
            if row["near_ties"] or row["diverged"]:
                table.add_row(dtype, row["recipe"], str(report["cases"]), *(str(row[name]) for name in COLUMNS))
        recipes = f"all {len(report['recipes'])}"
        table.add_row(dtype, recipes, str(report["cases"]), *(str(report[name]) for name in COLUMNS))
    (args.directory / "near_ties.json").write_text(json.dumps(reports, indent=1) + "\n")
    Console(soft_wrap=True).print(table)


if __name__ == "__main__":
    main()
