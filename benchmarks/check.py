"""Compare a benchmark with the last one of the same machine, and fail if something became slower.

    python benchmarks/check.py                        # runs `specc bench` on build/demo.specc and compares
    python benchmarks/check.py --new new.json         # compares a result that exists; nothing runs
    python benchmarks/check.py --record               # also keeps the new result as the last one of this machine

Only ratios are compared, since the speed of a machine drifts by the hour: each recipe's speed beside plain decoding,
its mean acceptance length, each engine's step beside a decoding step, and specc beside each peer. A ratio that fell by
more than the allowed share fails. The exit status is 0 if nothing failed, 1 if something did, and 2 if there is nothing
to compare with or a file cannot be read.

Results are kept in benchmarks/results/MACHINE/DATE-NAME.json: what `specc bench --json` printed, with the date, the
command, and a note.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
ALLOWED_FALL = 0.15  # Share of a ratio. Two runs on one busy machine differ by about this much.
Report = Mapping[str, Any]


class CheckError(Exception):
    """A comparison that is not possible, with the reason and the remedy."""


@dataclass(frozen=True)
class Change:
    """A ratio before and now.

    Attributes:
        name: what the ratio is about.
        before: its value in the last result.
        now: its value in the new result; None if the new result does not have it.
    """

    name: str
    before: float
    now: float | None

    @property
    def fall(self) -> float:
        """The share of its value that the ratio lost; negative if it rose, and all if it is gone."""
        return 1.0 if self.now is None else 1 - self.now / self.before


def ratios(report: Report) -> dict[str, float]:
    """Collect the ratios of a report, each so that more is better, by name."""
    values = {}
    last = report["rows"][-1]["category"]  # This is the only category, or the one of all prompts.
    for row in report["rows"]:
        if row["category"] == last:
            name = row["recipe"] if row["system"] == "specc" else f"{row['system']} {row['recipe']}"
            if name != "plain":
                values[f"{name}, speed / plain decoding"] = row["speedup"]
                if row["mean_acceptance_length"] is not None:
                    values[f"{name}, mean acceptance length"] = row["mean_acceptance_length"]
    decode = {cost["context"]: cost["milliseconds"] for cost in report["step_costs"] if cost["engine"] == "decode"}
    for cost in report["step_costs"]:
        if cost["engine"] != "decode":
            name = f"{cost['engine']} after {cost['context']} rows, decode / step"
            values[name] = decode[cost["context"]] / cost["milliseconds"]
    for other in report["against"]:
        values[f"specc / {other['system']}"] = other["ratio"]
    return values


def compare(before: Report, now: Report) -> list[Change]:
    """List every ratio of the last result with its value in the new one, the greatest fall first."""
    new = ratios(now)
    changes = [Change(name, value, new.get(name)) for name, value in ratios(before).items() if value > 0]
    return sorted(changes, key=lambda change: -change.fall)


def machine_name(report: Report) -> str:
    """Name the machine of a report after its processor and its threads, for a directory."""
    machine = report["machine"]
    cpu = re.sub(r"\((r|tm)\)", "", machine["cpu"].lower())
    words = re.findall(r"[a-z0-9]+", cpu)
    return "-".join([*words, f"{machine['cores']}-cores", f"{machine['threads']}-threads"])


def last_result(directory: Path, name: str) -> Path:
    """Find the newest result of a machine.

    Args:
        directory: the machine's directory.
        name: the name of the benchmark.

    Raises:
        CheckError: the machine has no result.
    """
    results = sorted(directory.glob(f"????-??-??-{name}.json"))
    if not results:
        raise CheckError(f"no earlier result in {directory}; keep this one with --record")
    return results[-1]


def read(file: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        CheckError: the file cannot be read, or is not the JSON of `specc bench`.
    """
    try:
        report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        ratios(report), machine_name(report)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as e:
        raise CheckError(f"{file} is not a result of specc bench --json ({type(e).__name__}: {e})") from e
    return report


def run(command: list[str]) -> dict[str, Any]:
    """Run a benchmark.

    Raises:
        CheckError: it failed.
    """
    result = subprocess.run([sys.executable, "-m", *command], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if result.returncode:
        raise CheckError(f"{' '.join(command)} ended with status {result.returncode}")
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def draw(changes: Iterable[Change], allowed: float) -> Table:
    """Draw every change, with a verdict."""
    table = Table("ratio", "before", "now", "change", "verdict")
    for column in table.columns[1:4]:
        column.justify = "right"
    for change in changes:
        now = "-" if change.now is None else f"{change.now:.3f}"
        shift = "gone" if change.now is None else f"{-change.fall:+.1%}"
        failed = change.fall > allowed
        table.add_row(
            change.name, f"{change.before:.3f}", now, shift, "slower" if failed else "ok", style="red" if failed else ""
        )
    return table


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="build/demo.specc", help="the bundle to measure (default %(default)s)")
    parser.add_argument("--new", type=Path, metavar="FILE", help="a new result; without it, a benchmark runs")
    parser.add_argument("--old", type=Path, metavar="FILE", help="the result to compare with (default: the last one)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results are kept")
    parser.add_argument("--name", default="demo", help="the name of the benchmark (default %(default)s)")
    parser.add_argument("--allowed-fall", type=float, default=ALLOWED_FALL, help="as a share (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of the benchmark (default %(default)s)")
    parser.add_argument("--max-new-tokens", type=int, default=48, help="tokens of each answer (default %(default)s)")
    parser.add_argument("--record", action="store_true", help="keep the new result")
    parser.add_argument("--note", default="", help="a remark that is kept with the result")
    return parser.parse_args(argv)


def record(args: argparse.Namespace, report: Report, command: str) -> Path:
    """Keep a result under today's date, with the command that measured it, and return its file."""
    today = date.today().isoformat()
    file: Path = args.results / machine_name(report) / f"{today}-{args.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    data = {**report, "date": today, "command": command, "note": args.note}  # The report's own date has a time of day.
    file.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    return file


def check(args: argparse.Namespace, console: Console) -> int:
    """Measure or read the new result, compare it with the last one, and keep it if that is asked for.

    Returns:
        The exit status.

    Raises:
        CheckError: there is nothing to compare with, or a file cannot be read.
    """
    command = ["specc", "bench", args.bundle, "--recipe", "all", "--rounds", str(args.rounds)]
    command += ["--max-new-tokens", str(args.max_new_tokens), "--json"]
    report = read(args.new) if args.new else run(command)
    source = str(args.new) if args.new else " ".join(command)
    status = 0
    try:
        old = args.old or last_result(args.results / machine_name(report), args.name)
    except CheckError:
        if not args.record:
            raise
    else:
        changes = compare(read(old), report)
        console.print(draw(changes, args.allowed_fall))
        failed = sum(change.fall > args.allowed_fall for change in changes)
        status = 1 if failed else 0
        console.print(f"{failed} of {len(changes)} ratios fell by more than {args.allowed_fall:.0%} since {old}")
    if args.record:
        console.print(f"kept as {record(args, report, source)}")
    return status


def main(argv: list[str] | None = None) -> int:
    """Run the check and return the exit status."""
    try:
        return check(parse(argv), Console(highlight=False, markup=False, soft_wrap=True))
    except CheckError as e:
        print(f"check: error: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
