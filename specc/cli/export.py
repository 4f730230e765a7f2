"""The verb `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from specc.cli import console
from specc.cli.arguments import BundleArgument, JsonOption, examples, flag, option
from specc.runtime.errors import BackendError

EXAMPLES = examples("specc export --standard model.specc -o standard.specc")
OUTPUT = "The directory of the bundle to write."
STANDARD = "Replace the operators of specc-kernels by ONNX Runtime's own: weights widened, or in the same few bits."
OVERWRITE = "Replace the bundle if it exists."


def command(
    bundle: BundleArgument,
    output: Annotated[Path, option("OUT", OUTPUT, "-o", "--output")],
    standard: Annotated[bool, flag("--standard", STANDARD)] = False,
    overwrite: Annotated[bool, flag("--overwrite", OVERWRITE)] = False,
    json: JsonOption = False,
) -> None:
    """Write a bundle that runs without specc-kernels.

    The golden outputs are replayed: if one changes, nothing is written. The recipes are measured anew, since the
    engines cost other times. Engines with lanes are left out.
    """
    if not standard:
        raise BackendError("export has one form so far; give --standard")
    from specc.compiler.standard import export_standard

    with console.stages() as stage:
        exported = export_standard(Path(bundle), output, overwrite, stage)
    manifest = exported.bundle.manifest
    summary = {
        "bundle": str(output),
        "operators": exported.operators,
        "left_out": list(exported.left_out),
        "default_recipe": manifest.default_recipe,
        "bytes": sum(file.bytes for file in manifest.files.values()),
    }
    if json:
        console.emit(summary)
        return
    console.out().print(
        console.text(f"{output}: {exported.operators} operators replaced, default recipe {manifest.default_recipe}")
    )
    if exported.left_out:
        console.out().print(console.text(f"left out, as they have lanes: {', '.join(exported.left_out)}"))
