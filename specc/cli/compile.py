"""The verb `compile`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specc.cli import console
from specc.cli.arguments import (
    JsonOption,
    OptionalInt,
    OptionalPath,
    OptionalStr,
    StrList,
    examples,
    flag,
    option,
    split_commas,
)
from specc.cli.terms import LENGTH_LINE, LENGTH_TITLE
from specc.cli.test import verdicts

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

    from specc.compiler import Report
    from specc.runtime.manifest import Manifest

EXAMPLES = examples(
    "specc compile HuggingFaceTB/SmolLM2-135M -o smollm.specc",
    "specc compile ./model -o m.specc --recipe prompt-lookup --recipe early-exit",
    "specc compile ./model -o m.specc --set early-exit.assistant_early_exit=4",
    "specc compile ./model -o m.specc --assistant-model ./small",
    "specc compile ./model -o m.specc --recipe my-recipe.toml",
    'specc compile ./model -o m.specc --tree "[(0,), (1,), (0, 0), (0, 0, 0)]"',
)
MODEL = "A hub id, a directory with a tokenizer and weights, or a GGUF file."
OUTPUT = "The directory of the bundle to write."
RECIPE = (
    "Compile this recipe, or several with commas, or the recipe of a file FILE.toml. May be repeated. Default: one "
    "recipe of each kind that needs nothing beyond the other options."
)
SET = "Set a parameter of one recipe. May be repeated. 'specc recipes show NAME' lists the parameters."
ASSISTANT = "A small model that drafts. It must have the same tokenizer."
UNTUNED = "The small model of --assistant-model as it was before its tuning. It must have the same tokenizer."
CORPUS = "A folder of text files, or one file. Recipes that retrieve look up drafts in it; the bundle keeps it."
HEAD = (
    "The directory, or the hub id, of a trained head for this model: one that 'specc train' wrote, or one in the "
    "format of EAGLE, EAGLE-3, Medusa, DFlash, speculators, or of a model with MTP. May be repeated."
)
SPECULATIVE_TOKENS = "The number of tokens in a draft, for every recipe."
EXIT_LAYERS = "The number of layers that an early exit runs."
COPIED_TOKENS = "The largest number of tokens that prompt lookup copies."
TREE = 'A tree as a list of paths. Each path is a list of sibling ranks, such as "[(0,), (1,), (0, 0)]".'
SKIP_LAYERS = "The layers that a layer-skipping draft leaves out."
LENGTH = "The number of tokens that fit, prompt and answer together. Default: the model's limit, 2048 at most."
PROMPTS = 'A file of golden prompts: JSON lines {"prompt": "…"}. A prompt that stands there twice counts once.'
GOLDEN_TOKENS = "The number of tokens to decode for each golden prompt."
TEXT = "A text on which 'specc test' compares the perplexity with the original model's."
BACKEND = (
    "Build the engines with this backend, or several with commas. May be repeated. 'specc doctor' lists them. "
    "Default: onnx."
)
DTYPE = (
    "The type of the weights: fp32, fp16, bf16, int8 or int4. With several backends, the onnx engines stay fp32. "
    "gguf keeps the blocks of a GGUF file, bit for bit, and needs specc-kernels. "
    "On the CPU, bf16 needs specc-kernels, and is then the default for checkpoints in bf16: the tokens of fp32, from "
    "half the bytes. Where specc-kernels compute all of it, int8 and int4 give the same tokens at every width."
)
TUNE = "Choose recipe, draft lengths, widths and trees as 'specc tune' does. Compiles again if other trees are faster."
DRAFT_DTYPE = (
    "The type of the weights that drafts read: fp32, int8 or int4. With lossless recipes it changes the speed alone. "
    "Recipes that draft by 4-bit copies of the model have no other type. Default: int8 for trained heads, whose drafts "
    "would be worse in 4 bits, and int4 for others."
)
LOWERING = (
    "The operators in ONNX files: fast (ONNX Runtime's own), portable (standard ones), or kernels (those of "
    "specc-kernels: each row has the same bits at every width). Default: kernels where the library is installed, "
    "else the backend chooses."
)
CAPABILITY = "The GPU to build TensorRT engines for, such as 8.9. Default: the GPU of this machine."
LANES = (
    "Also build engines that run N requests in one call, each over a cache of its own, for programs that serve many "
    "requests by Model.submit. The backend onnx has them. "
    "1 builds none."
)
SPLIT = "Write a weights file for each model and type of weights, for runtimes that load a file whole."
INSIDE = "Give each TensorRT engine its own copy of the weights, instead of one copy for all."
ADAPTER = "A directory that peft wrote. It is merged into the weights."
REVISION = "A branch, tag or commit of the repository on the hub."
TRUST = "Run Python code that comes with the model."
OVERWRITE = "Replace the bundle if it exists."
PARTIAL = (
    "'{cases} of {of_cases}': the recipe was dropped after a try-out on so many prompts. Its tokens/s are those of "
    "plain times its speed-up there."
)
UNMEASURED_LINE = (
    "No recipe was measured: this machine runs no engine of the bundle. To see what it lacks: specc doctor"
)
KERNELS_LINE = (
    "The engines need specc-kernels where they run. For machines without it: specc export --standard {bundle} -o OUT"
)
EXACT_LINE = "--exact: the speed-up at one width, compared with plain decoding as it is"
DUMP = "Write the graph after each pass into this directory, as Python."


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    output: Annotated[Path, option("OUT", OUTPUT, "-o", "--output", rich_help_panel="Output")],
    recipe: Annotated[StrList, option("NAME", RECIPE, rich_help_panel="Drafts")] = None,
    set_: Annotated[StrList, option("RECIPE.PARAMETER=VALUE", SET, "--set", rich_help_panel="Drafts")] = None,
    assistant_model: Annotated[OptionalStr, option("MODEL", ASSISTANT, rich_help_panel="Drafts")] = None,
    untuned_model: Annotated[OptionalStr, option("MODEL", UNTUNED, rich_help_panel="Drafts")] = None,
    corpus: Annotated[OptionalPath, option("PATH", CORPUS, rich_help_panel="Drafts")] = None,
    head: Annotated[StrList, option("DIR", HEAD, rich_help_panel="Drafts")] = None,
    num_speculative_tokens: Annotated[
        OptionalInt, option("N", SPECULATIVE_TOKENS, min=1, rich_help_panel="Drafts")
    ] = None,
    assistant_early_exit: Annotated[OptionalInt, option("K", EXIT_LAYERS, min=1, rich_help_panel="Drafts")] = None,
    prompt_lookup_num_tokens: Annotated[
        OptionalInt, option("N", COPIED_TOKENS, min=1, rich_help_panel="Drafts")
    ] = None,
    tree: Annotated[OptionalStr, option("LITERAL", TREE, rich_help_panel="Drafts")] = None,
    skip_layers: Annotated[OptionalStr, option("3,4", SKIP_LAYERS, rich_help_panel="Drafts")] = None,
    max_seq_len: Annotated[OptionalInt, option("N", LENGTH, min=1, rich_help_panel="Model")] = None,
    prompts: Annotated[OptionalPath, option("FILE", PROMPTS, rich_help_panel="Golden outputs")] = None,
    golden_tokens: Annotated[int, option("N", GOLDEN_TOKENS, min=1, rich_help_panel="Golden outputs")] = 24,
    text: Annotated[OptionalPath, option("FILE", TEXT, rich_help_panel="Golden outputs")] = None,
    backend: Annotated[StrList, option("NAME", BACKEND, rich_help_panel="Engines")] = None,
    dtype: Annotated[OptionalStr, option("T", DTYPE, rich_help_panel="Model")] = None,
    tune: Annotated[bool, flag("--tune", TUNE, rich_help_panel="Drafts")] = False,
    draft_dtype: Annotated[OptionalStr, option("T", DRAFT_DTYPE, rich_help_panel="Drafts")] = None,
    lowering: Annotated[OptionalStr, option("L", LOWERING, rich_help_panel="Engines")] = None,
    lanes: Annotated[int, option("N", LANES, min=1, rich_help_panel="Engines")] = 1,
    compute_capability: Annotated[OptionalStr, option("X.Y", CAPABILITY, rich_help_panel="Engines")] = None,
    weights_inside: Annotated[bool, flag("--weights-inside", INSIDE, rich_help_panel="Engines")] = False,
    split_weights: Annotated[bool, flag("--split-weights", SPLIT, rich_help_panel="Engines")] = False,
    revision: Annotated[OptionalStr, option("R", REVISION, rich_help_panel="Model")] = None,
    adapter: Annotated[OptionalPath, option("DIR", ADAPTER, rich_help_panel="Model")] = None,
    trust_remote_code: Annotated[bool, flag("--trust-remote-code", TRUST, rich_help_panel="Model")] = False,
    overwrite: Annotated[bool, flag("--overwrite", OVERWRITE, rich_help_panel="Output")] = False,
    dump_graphs: Annotated[OptionalPath, option("DIR", DUMP, rich_help_panel="Output")] = None,
    json: JsonOption = False,
) -> None:
    """Compile a Hugging Face model into a bundle.

    Captures the model, builds the engines of each recipe, and keeps golden outputs of the original model. Then it
    measures the recipes on them. The fastest lossless recipe becomes the default of the bundle.
    """
    from specc.cli import values
    from specc.corpus import check_corpus
    from specc.machine import warn_if_busy
    from specc.recipes import method
    from specc.recipes.choice import available, check_ranges, choose

    recipes, backends = split_commas("--recipe", recipe or ()), split_commas("--backend", backend or ())
    parameters = values.parse_settings(
        set_ or (),
        {m.name: m for m in map(method, recipes)},
        num_speculative_tokens=num_speculative_tokens,
        assistant_early_exit=assistant_early_exit,
        prompt_lookup_num_tokens=prompt_lookup_num_tokens,
        tree=values.parse_tree(tree),
        skip_layers=values.parse_layers("--skip-layers", skip_layers),
    )
    has = available(assistant_model=assistant_model, untuned_model=untuned_model, corpus=corpus)
    check_ranges(choose(recipes, parameters, has, None if head else ()), parameters)
    if corpus:
        check_corpus(corpus)
    with console.loading("torch"):
        from specc.backends import Options as BuildOptions
        from specc.compiler import Options, compile_bundle

    warn_if_busy()
    with console.stages() as stage:
        report = compile_bundle(
            Options(
                model=model,
                output=output,
                recipes=recipes,
                parameters=parameters,
                assistant_model=assistant_model,
                untuned_model=untuned_model,
                corpus=corpus,
                heads=head or (),
                revision=revision,
                adapter=adapter,
                trust_remote_code=trust_remote_code,
                max_seq_len=max_seq_len,
                prompts=prompts,
                golden_tokens=golden_tokens,
                text=text,
                backends=backends or ("onnx",),
                dtype=dtype,
                draft_dtype=draft_dtype,
                lanes=lanes,
                build=BuildOptions(
                    lowering=lowering,
                    compute_capability=compute_capability,
                    weights_inside=weights_inside,
                    split_weights=split_weights,
                ),
                overwrite=overwrite,
                dump_graphs=dump_graphs,
                tune=tune,
                stage=stage,
            )
        )
    if json:
        console.emit(report_json(report))
    else:
        console.show(report_table(report))


def report_json(report: Report) -> dict[str, Any]:
    """Return the report of a compile as plain data."""
    manifest = report.bundle.manifest
    return {
        "bundle": str(report.bundle.path),
        "engines": [
            {
                "name": engine.name,
                "slots": engine.block.slots,
                "layers": list(engine.layers),
                "file": engine.file,
                "bytes": manifest.files[engine.file].bytes,
                "backend": engine.backend,
            }
            for engine in manifest.engines
        ],
        "bytes": sum(file.bytes for file in manifest.files.values()),
        "weights_bytes": manifest.files[manifest.weights].bytes,
        "default_recipe": manifest.default_recipe,
        "provisional": manifest.provisional,
        "seconds": round(report.seconds, 3),
        "peak_rss_bytes": report.peak_rss_bytes,
        "recipes": [dict(row) for row in manifest.measured],
    }


def report_table(report: Report) -> RenderableType:
    """Draw the report of a compile: the recipes as measured, and the sizes of the bundle."""
    from specc.runtime.engines import kernels

    manifest = report.bundle.manifest
    total = console.size(sum(file.bytes for file in manifest.files.values()))
    weights = console.size(manifest.files[manifest.weights].bytes)
    effort = f"compiled in {report.seconds:.0f} s, peak memory {console.size(report.peak_rss_bytes)}"
    title = console.text(str(report.bundle.path), "bold").append(
        f"  {total}, weights {weights}, {len(manifest.engines)} engines", ""
    )
    lines = [title, console.text(f"* {default_line(manifest)}; {effort}"), console.text(LENGTH_LINE, "dim")]
    if any("exact_speedup" in row for row in manifest.measured):
        lines.append(console.text(EXACT_LINE, "dim"))
    partial = [row for row in manifest.measured if row.get("cases", 0) < row.get("of_cases", 0)]
    if partial:
        lines.append(console.text(PARTIAL.format_map(partial[0]), "dim"))
    if any(map(kernels.needed, manifest.engines)):
        lines.append(console.text(KERNELS_LINE.format(bundle=report.bundle.path)))
    if not manifest.measured:
        lines.append(console.text(UNMEASURED_LINE, "yellow"))
    if manifest.provisional:
        lines.append(console.text(provisional_line(report.bundle.path), "yellow"))
    return console.stack(_recipes(manifest), "", *lines)


def default_line(manifest: Manifest) -> str:
    """Name the default recipe, and say whether the choice is provisional."""
    return f"{'provisional ' if manifest.provisional else ''}default recipe {manifest.default_recipe}"


def provisional_line(bundle: Path) -> str:
    """Say why a default is provisional, and what to do."""
    from specc.tuning.policy import DEFAULT_RECIPE

    enough = f"{DEFAULT_RECIPE.least_prompts} prompts and {DEFAULT_RECIPE.least_tokens} tokens"
    return f"The default is provisional: it rests on fewer than {enough}. Choose again with: specc tune {bundle}"


def golden_counts(row: Mapping[str, Any]) -> Text:
    """Write the verdicts of a row of `measured`, after "2 of 6:" if the recipe ran on a part of the golden prompts."""
    counts = verdicts(row["identical"], row["near-tie"], row["diverged"], row.get("lossy", 0))
    if row.get("cases", 0) < row.get("of_cases", 0):
        return console.text(f"{row['cases']} of {row['of_cases']}: ").append(counts)
    return counts


def _recipes(manifest: Manifest) -> Table:
    """Draw the speed of each recipe on the golden prompts. A star marks the default recipe."""
    exact = ["--exact"] if any("exact_speedup" in row for row in manifest.measured) else []
    numbers = [(title, "right") for title in ("tokens/s", "speed-up", *exact, LENGTH_TITLE)]
    table = console.table("recipe", *numbers, "lossless", "golden")
    for row in manifest.measured:
        cost = [f"{row['exact_speedup']:.2f}" if "exact_speedup" in row else "-"] if exact else []
        is_default = row["recipe"] == manifest.default_recipe
        table.add_row(
            f"{row['recipe']} *" if is_default else row["recipe"],
            f"{row['tokens_per_second']:.1f}",
            f"{row['speedup']:.2f}",
            *cost,
            f"{row['mean_acceptance_length']:.2f}",
            row.get("exactness", "yes" if row["lossless"] else "no"),
            golden_counts(row),
            style="bold" if is_default else None,
        )
    return table
