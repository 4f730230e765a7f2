"""The verb `export`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from specc.cli import console
from specc.cli.arguments import BundleArgument, JsonOption, OptionalStr, examples, flag, option
from specc.runtime.errors import BackendError

EXAMPLES = examples(
    "specc export --standard model.specc -o standard.specc",
    "specc export --to onnxruntime-genai model.specc -o genai",
    "specc export --to openvino model.specc -o openvino",
)
OUTPUT = "The directory to write: of a bundle, or of the model in the other runtime's form."
STANDARD = "Replace the operators of specc-kernels by ONNX Runtime's own: weights widened, or in the same few bits."
TO = "Write the model in the form of another runtime: onnxruntime-genai or openvino."
DRAFT = (
    "With --to onnxruntime-genai: the recipe whose draft engine goes with the model, or none. "
    "Default: that of the fastest recipe."
)
OVERWRITE = "Replace the output if it exists."

Report = tuple[dict[str, Any], list[str]]  # `--json` prints the first; without it the second is printed, line by line.


def command(
    bundle: BundleArgument,
    output: Annotated[Path, option("OUT", OUTPUT, "-o", "--output")],
    standard: Annotated[bool, flag("--standard", STANDARD)] = False,
    to: Annotated[OptionalStr, option("RUNTIME", TO)] = None,
    draft: Annotated[OptionalStr, option("RECIPE", DRAFT)] = None,
    overwrite: Annotated[bool, flag("--overwrite", OVERWRITE)] = False,
    json: JsonOption = False,
) -> None:
    """Write a bundle that runs without specc-kernels, or the model in the form of another runtime.

    The golden outputs are replayed: if one changes, nothing is written. With --to, that needs the other runtime on this
    machine. Without onnxruntime-genai, a line says that nothing was replayed. Without OpenVINO, there is an error.

    With --standard, the recipes are measured anew, since the engines cost other times. Engines with lanes are left out.
    A bundle of few bits, such as int4, may be refused: ONNX Runtime's operators round otherwise, and a golden output
    changes. Then compile the model again with --lowering fast.
    """
    if standard == (to is not None):
        raise BackendError(f"export writes one form at a time; give --standard, or --to {' or '.join(RUNTIMES)}")
    if to is None:
        if draft is not None:
            raise BackendError(f"--draft {draft} goes with --to; --standard rewrites every recipe")
        summary, lines = _standard(Path(bundle), output, overwrite)
    elif to in RUNTIMES:
        summary, lines = RUNTIMES[to](Path(bundle), output, overwrite, draft or "")
    else:
        raise BackendError(f"--to {to!r} is not a runtime that specc writes for; give {' or '.join(RUNTIMES)}")
    if json:
        console.emit(summary)
        return
    for line in lines:
        console.out().print(console.text(line), soft_wrap=True)


def _standard(bundle: Path, output: Path, overwrite: bool) -> Report:
    """Replace the operators of specc-kernels."""
    from specc.compiler.standard import export_standard

    with console.stages() as stage:
        exported = export_standard(bundle, output, overwrite, stage)
    manifest = exported.bundle.manifest
    summary = {
        "bundle": str(output),
        "operators": exported.operators,
        "left_out": list(exported.left_out),
        "default_recipe": manifest.default_recipe,
        "bytes": sum(file.bytes for file in manifest.files.values()),
    }
    lines = [f"{output}: {exported.operators} operators replaced, default recipe {manifest.default_recipe}"]
    if exported.left_out:
        lines.append(f"left out, as they have lanes: {', '.join(exported.left_out)}")
    return summary, lines


def _genai(bundle: Path, output: Path, overwrite: bool, draft: str) -> Report:
    """Write the model as onnxruntime-genai loads it."""
    from specc.compiler.genai import export_genai

    with console.stages() as stage:
        exported = export_genai(bundle, output, overwrite, stage, draft)
    summary = {"directory": str(output), "draft": exported.draft or None, "replayed": exported.cases}
    model = f"the draft model is {exported.draft}" if exported.draft else "it has no draft model"
    replayed = "onnxruntime-genai is not installed, so no golden output was replayed; pip install onnxruntime-genai"
    if exported.cases:
        replayed = f"{exported.cases} golden outputs replayed in onnxruntime-genai"
    return summary, [f"{output}: {model}", replayed]


def _openvino(bundle: Path, output: Path, overwrite: bool, draft: str) -> Report:
    """Write the model for plain decoding as OpenVINO loads it."""
    if draft not in ("", "none"):
        raise BackendError(f"--draft {draft} does not go with --to openvino, which writes plain decoding; leave it out")
    from specc.compiler.openvino import export_openvino

    with console.stages() as stage:
        cases = export_openvino(bundle, output, overwrite, stage)
    lines = [f"{output}: plain decoding with a state", f"{cases} golden outputs replayed in OpenVINO"]
    return {"directory": str(output), "draft": None, "replayed": cases}, lines


# By name: a function of the bundle, the output, whether to replace it, and the recipe with the draft.
RUNTIMES: Mapping[str, Callable[[Path, Path, bool, str], Report]] = {
    "onnxruntime-genai": _genai,
    "openvino": _openvino,
}
