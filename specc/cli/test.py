"""The verb `test`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from specc.cli import console
from specc.cli.arguments import (
    BackendOption,
    BundleArgument,
    DeviceOption,
    JsonOption,
    NativeCodeOption,
    OptionalPath,
    OptionalStr,
    ProviderOption,
    StrList,
    examples,
    flag,
    option,
    split_commas,
)
from specc.cli.output_file import check_file
from specc.cli.terms import LENGTH_LINE, LENGTH_TITLE

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from specc.exactness.replay import Counts, Divergence, Proof

EXAMPLES = examples(
    "specc test model.specc",
    "specc test model.specc --recipe prompt-lookup --tolerance 0.0001",
    "specc test model.specc --reference HuggingFaceTB/SmolLM2-135M",
    "specc test model.specc --text book.txt",
    "specc test model.specc --exact",
    "specc test model.specc --junit report.xml",
    "specc test model.specc --runtime c",
)
REFERENCE = "Compute the expected tokens anew with this model, in transformers."
TEXT = "Report perplexity on this text file. Default: the texts of the golden prompts."
RECIPE = "Replay by this recipe, or several with commas. May be repeated. Default: all recipes."
EXACT = (
    "Decode each recipe at one width, and demand the tokens of plain decoding at that width. Recipes that verify trees "
    "are left out."
)
RUNTIME = "What decodes: python, c, node, web, or a program that answers. The recipes that another one lacks are named."
JUNIT = "Write a JUnit report to this file, too: a suite for each recipe, a test for each golden case."
TOLERANCE = "A divergence is a near-tie if the gap of the logits is below this. Default: the bundle's tolerance."


def command(
    bundle: BundleArgument,
    reference: Annotated[OptionalStr, option("MODEL", REFERENCE)] = None,
    text: Annotated[OptionalPath, option("FILE", TEXT)] = None,
    recipe: Annotated[StrList, option("NAME", RECIPE)] = None,
    tolerance: Annotated[float | None, option("T", TOLERANCE, min=0.0)] = None,
    exact: Annotated[bool, flag("--exact", EXACT)] = False,
    junit: Annotated[OptionalPath, option("FILE", JUNIT)] = None,
    runtime: Annotated[str, option("NAME", RUNTIME)] = "python",
    device: DeviceOption = "cpu",
    execution_provider: ProviderOption = None,
    backend: BackendOption = None,
    allow_native_code: NativeCodeOption = False,
    json: JsonOption = False,
) -> None:
    """Check every file and replay the golden outputs.

    Decodes each case plainly and by every recipe. A divergence is a near-tie if the two best logits of the reference
    are closer than the tolerance. The exit status is 1 if anything else diverged, and 0 if not.

    Reports the perplexity of the bundle's own engines, too. It adds the original model's perplexity if that is known:
    with --reference, or if the bundle was compiled with --dtype int8 or int4, or with --text.
    """
    from specc.exactness.replay import prove
    from specc.runtime.device import Device

    if junit is not None:
        check_file(junit, "--junit")

    with console.stages() as stage:
        proof = prove(
            bundle,
            split_commas("--recipe", recipe or ()),
            tolerance,
            reference,
            stage,
            Device(device, execution_provider, backend),
            text,
            allow_native_code,
            exact,
            runtime,
        )
    if junit is not None:
        from specc.exactness.junit import write_report

        write_report(proof, junit)
    if json:
        console.emit(proof.to_json())
    else:
        console.show(proof_table(proof))
    raise typer.Exit(0 if proof.passed else 1)


def proof_table(proof: Proof) -> RenderableType:
    """Draw a proof: a row for each recipe, each divergence, and the counts over all recipes."""
    speeds = [("plain at its width", "right")] if proof.exact else []
    table = console.table("recipe", ("tokens/s", "right"), *speeds, (LENGTH_TITLE, "right"), "verdict")
    for row in proof.rows():
        plain = [f"{row.plain_tokens_per_second:.1f}"] if proof.exact else []
        length = f"{row.mean_acceptance_length:.2f}"
        table.add_row(row.recipe, f"{row.tokens_per_second:.1f}", *plain, length, _verdicts(row.counts))
    parts: list[RenderableType] = [table, ""]
    if divergences := proof.divergences():
        parts += [_divergences(divergences), ""]
    count = console.text(f"{len(proof.cases)} cases, {proof.tokens} tokens, {len(proof.replayed)} replays: ")
    rule = f"near-tie: the two best logits of the reference are closer than {proof.tolerance:g}"
    if proof.exact:
        rule = "exact: each recipe against plain decoding through the recipe's own engine, token for token"
    parts += [count.append_text(_verdicts(proof.counts)), console.text(rule, "dim"), console.text(LENGTH_LINE, "dim")]
    parts += [console.text(f"{name}: left out by {proof.runtime}: {why}") for name, why in proof.left_out.items()]
    parts += _notes(proof)
    return console.stack(*parts)


def _notes(proof: Proof) -> list[Text]:
    """Say how the target compares with the original model, and the golden file with the reference."""
    notes = []
    if original := proof.bundle.manifest.extra.get("original"):
        share = f"{original['agreement']:.1%} of {original['tokens']} next tokens are the original model's"
        notes.append(console.text(f"The weights are quantised, and the bundle is its own reference: {share}."))
    if perplexity := proof.perplexity:
        line = f"perplexity on {perplexity.text}, {perplexity.tokens} tokens: {perplexity.value:.3f}"
        if perplexity.original is not None:
            line += f"; the original model's is {perplexity.original:.3f}"
        notes.append(console.text(line))
    if counts := proof.golden_counts:
        line = f"the bundle's golden file compared with {proof.reference}: "
        notes.append(console.text(line).append_text(_verdicts(counts)))
    return notes


def _divergences(divergences: Iterable[Divergence]) -> Table:
    """Draw a row for each divergence: its place, both tokens, the reference's gap, the engine, the bundle's logits."""
    columns = [(title, "right") for title in ("case", "token", "expected", "got", "gap")]
    table = console.table("divergence", *columns, "verdict", "engine", "two best logits")
    for row in divergences:
        table.add_row(
            row.recipe,
            str(row.case),
            str(row.at),
            str(row.expected),
            "the end" if row.got is None else str(row.got),
            f"{row.gap:.6f}",
            row.verdict,
            row.engine,
            ", ".join(f"{token}: {logit:.4f}" for token, logit in row.best),
        )
    return table


def _verdicts(counts: Counts) -> Text:
    """Write how many replays had which verdict."""
    return verdicts(counts.identical, counts.near_ties, counts.diverged, counts.lossy)


def verdicts(identical: int, near_ties: int, diverged: int, lossy: int = 0) -> Text:
    """Write how many replays had which verdict. Counts of zero are left out, unless all are zero.

    Args:
        identical: replays with the reference's tokens.
        near_ties: replays that diverged where the reference's two best logits were close.
        diverged: replays that diverged elsewhere.
        lossy: replays that diverged, by recipes that are not lossless.
    """
    counts = [
        (identical, "identical", ""),
        (near_ties, "near-tie", "yellow"),
        (lossy, "different, as this recipe may be", ""),
        (diverged, "diverged", "red"),
    ]
    parts = [each for each in counts if each[0]] or counts[:1]
    return console.join([console.text(f"{count} {word}", style) for count, word, style in parts], ", ")
