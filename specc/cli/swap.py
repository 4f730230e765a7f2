"""The verb `swap`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from specc.cli import console
from specc.cli.arguments import BundleArgument, JsonOption, examples, flag, option

EXAMPLES = examples(
    "specc swap model.specc --assistant-model better -o newer.specc",
    "specc swap model.specc --assistant-model better -o model.specc --overwrite",
)
DRAFT = (
    "A draft model of the shape of the bundle's own, a directory or a hub id, such as 'specc train --online' writes."
)
OUTPUT = "The directory of the bundle to write."
OVERWRITE = "Replace the output if it exists. It may be the bundle itself."


def command(
    bundle: BundleArgument,
    assistant_model: Annotated[str, option("MODEL", DRAFT)],
    output: Annotated[Path, option("OUT", OUTPUT, "-o", "--output")],
    overwrite: Annotated[bool, flag("--overwrite", OVERWRITE)] = False,
    json: JsonOption = False,
) -> None:
    """Put the weights of another draft model into a bundle, without a compile.

    The engines stay as they are. The golden outputs are replayed by each recipe that drafts by these weights: if one
    changes, nothing is written. What 'specc tune' measured stays in the bundle, though other drafts may be accepted.
    """
    with console.loading("torch"):
        from specc.compiler.swap import swap_draft

    with console.stages() as stage:
        swapped = swap_draft(Path(bundle), assistant_model, output, overwrite, stage)
    if json:
        console.emit({"bundle": str(output), "tensors": swapped.tensors, "recipes": list(swapped.recipes)})
        return
    recipes = ", ".join(swapped.recipes)
    line = f"{output}: {swapped.tensors} tensors replaced, golden outputs replayed by {recipes}"
    console.out().print(console.text(line), soft_wrap=True)
