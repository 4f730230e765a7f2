"""The verb `golden`: more golden cases for a bundle, and a comparison of two golden files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specc.cli import console
from specc.cli.arguments import BundleArgument, JsonOption, NativeCodeOption, OptionalStr, examples, option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specc.exactness.golden_file import Difference

ADD_EXAMPLES = examples(
    "specc golden add model.specc --prompts prompts.jsonl --reference MODEL",
    "specc golden add model.specc --prompts prompts.jsonl --golden-tokens 128",
)
DIFF_EXAMPLES = examples("specc golden diff old.specc new.specc", "specc golden diff golden.jsonl new.specc --json")
PROMPTS = 'A file of prompts: JSON lines {"prompt": "…"}.'
REFERENCE = (
    "Decode the prompts with this model, in transformers. Default: plain decoding by the bundle itself, which tests "
    "recipes, and not the bundle's engines."
)
TOKENS = "The number of tokens to decode for each prompt at most."
NEAR_TIE = "A difference is a near-tie if the gap of the first file's logits is below this. Default: 0.001."
PATH = "A bundle, or a golden.jsonl."

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Add golden cases to a bundle, or compare those of two bundles.",
    epilog=examples("specc golden add model.specc --prompts prompts.jsonl", "specc golden diff old.specc new.specc"),
)


@app.command("add", epilog=ADD_EXAMPLES)
def add(
    bundle: BundleArgument,
    prompts: Annotated[Path, option("FILE", PROMPTS)],
    reference: Annotated[OptionalStr, option("MODEL", REFERENCE)] = None,
    golden_tokens: Annotated[int, option("N", TOKENS, min=1)] = 48,
    allow_native_code: NativeCodeOption = False,
    json: JsonOption = False,
) -> None:
    """Add a golden case to a bundle for each prompt of a file.

    The bundle is replaced in one step, by one with the same engines and weights.
    """
    from specc.exactness import golden
    from specc.exactness.golden_file import add_cases

    with console.stages() as stage:
        title = f"decode the prompts with {reference or 'the bundle'}"
        changed = add_cases(
            bundle, prompts, golden_tokens, reference, allow_native_code, lambda done, count: stage(title, done, count)
        )
    count = len(golden.cases_of(changed))
    if json:
        console.emit({"bundle": str(bundle), "cases": count})
    else:
        console.out().print(console.text(f"{bundle} has {count} golden cases now"), soft_wrap=True)


@app.command("diff", epilog=DIFF_EXAMPLES)
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help=PATH)],
    second: Annotated[Path, typer.Argument(metavar="B", help=PATH)],
    tolerance: Annotated[float | None, option("T", NEAR_TIE, min=0.0)] = None,
    json: JsonOption = False,
) -> None:
    """Compare the golden cases of two bundles.

    Cases with the same prompt belong together. The exit status is 1 if a case differs by more than a near-tie, or if
    one file has a prompt that the other one has not.
    """
    from specc.exactness.golden import Verdict
    from specc.exactness.golden_file import compare_files
    from specc.runtime.manifest_checks import TOLERANCE

    difference = compare_files(first, second, TOLERANCE if tolerance is None else tolerance)
    if json:
        console.emit(report(difference))
    else:
        console.show(difference_table(difference, str(first), str(second)))
    diverged = any(result.verdict is Verdict.DIVERGED for result in difference.compared)
    raise typer.Exit(1 if diverged or difference.missing or difference.new else 0)


def report(difference: Difference) -> dict[str, Any]:
    """Return what `specc golden diff --json` prints."""
    return {
        "cases": len(difference.compared),
        "identical": sum(result.at is None for result in difference.compared),
        "differences": [
            {
                "case": result.case,
                "at": result.at,
                "expected": result.expected,
                "got": result.token,
                "gap": result.gap,
                "verdict": result.verdict,
            }
            for result in difference.compared
            if result.at is not None
        ],
        "missing": list(difference.missing),
        "new": list(difference.new),
    }


def difference_table(difference: Difference, first: str, second: str) -> RenderableType:
    """Draw a row for each case that differs, and the prompts that only one file has."""
    identical = sum(result.at is None for result in difference.compared)
    notes = [f"{len(difference.compared)} prompts are in both files, {identical} of them with equal tokens"]
    for texts, name in ((difference.missing, first), (difference.new, second)):
        notes += [f"only in {name}: {text[:60]!r}" for text in texts]
    lines = console.text("\n".join(notes))
    rows = [result for result in difference.compared if result.at is not None]
    if not rows:
        return lines
    columns = [(title, "right") for title in ("case", "token", "expected", "got", "gap")]
    table = console.table(*columns, "verdict")
    for row in rows:
        expected, got = ("the end" if token is None else str(token) for token in (row.expected, row.token))
        gap = "" if row.gap is None else f"{row.gap:.6f}"
        table.add_row(str(row.case), str(row.at), expected, got, gap, row.verdict)
    return console.stack(table, lines)
