"""The verb `train`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specc.cli import console
from specc.cli.arguments import JsonOption, OptionalInt, OptionalPath, examples, flag, option

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specc.training.card import Card

EXAMPLES = examples(
    "specc train HuggingFaceTB/SmolLM2-135M-Instruct --recipe eagle3 -o head",
    "specc train ./model --recipe eagle3 -o head --data prompts.jsonl --minutes 30",
    "specc train ./model --recipe medusa -o head --data book.txt --data code.py",
    "specc train ./model --recipe eagle3 -o head --costs model.specc --json",
)
MODEL = "A hub id, a directory with a tokenizer and weights, or a GGUF file."
RECIPE = "The recipe whose head is trained, such as eagle3 or medusa; a wrong name lists them all."
OUTPUT = "The directory of the head to write."
DATA = (
    "A file of prompts that the model answers: JSON lines with prompt, turns or messages, plain or .gz. A file that "
    "does not end in .jsonl, .json or .gz is text, whose pieces the model continues. May be repeated. Default: "
    "prompts that ship with specc."
)
RECORDING_MINUTES = (
    "The minutes after which the model answers no more prompts. What was recorded before counts in addition. Default: "
    "all prompts are answered."
)
MINUTES = "The minutes of training. Recording, which comes before, is not counted."
UPDATES = "The number of updates, in place of --minutes. Two runs then give equal weights on one machine."
PROMPTS = "The largest number of prompts of the files, or of those that ship with specc."
SELF_PROMPTS = (
    "The number of prompts that the model writes itself, besides. Default: as many as --prompts, or none if there is "
    "--data."
)
ANSWER = "The largest number of tokens of an answer."
HELD_OUT = "The number of prompts that are kept for the evaluation."
VOCABULARY = "The number of tokens that the head knows: the most frequent ones."
RATE = "The learning rate."
BITS = "How many bits the numbers of a matrix have on disk: 16 or 8."
SEED = "The seed of the order of the text, of sampled answers and of the updates."
WORK = (
    "The directory of the recordings and checkpoints, from which an interrupted run goes on. It may be deleted "
    "afterwards. Default: OUT with the ending .training."
)
COSTS = "A bundle of the model that 'specc tune' has measured on this machine: its costs predict the gain."
OVERWRITE = "Replace the head if it exists."


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL)],
    recipe: Annotated[str, option("NAME", RECIPE, rich_help_panel="Head")],
    output: Annotated[Path, option("OUT", OUTPUT, "-o", "--output", rich_help_panel="Output")],
    data: Annotated[list[Path] | None, option("FILE", DATA, rich_help_panel="Text")] = None,
    prompts: Annotated[int, option("N", PROMPTS, min=2, rich_help_panel="Text")] = 2500,
    self_prompts: Annotated[OptionalInt, option("N", SELF_PROMPTS, min=0, rich_help_panel="Text")] = None,
    answer_tokens: Annotated[int, option("N", ANSWER, min=8, rich_help_panel="Text")] = 160,
    recording_minutes: Annotated[float | None, option("M", RECORDING_MINUTES, min=0.0, rich_help_panel="Text")] = None,
    held_out: Annotated[int, option("N", HELD_OUT, min=1, rich_help_panel="Text")] = 64,
    minutes: Annotated[float, option("M", MINUTES, min=0.01, rich_help_panel="Training")] = 60.0,
    updates: Annotated[OptionalInt, option("N", UPDATES, min=1, rich_help_panel="Training")] = None,
    learning_rate: Annotated[float, option("R", RATE, min=1e-9, rich_help_panel="Training")] = 8e-4,
    seed: Annotated[int, option("S", SEED, min=0, rich_help_panel="Training")] = 0,
    draft_vocab_size: Annotated[int, option("N", VOCABULARY, min=8, rich_help_panel="Head")] = 8192,
    bits: Annotated[int, option("B", BITS, min=8, max=16, rich_help_panel="Output")] = 16,
    work: Annotated[OptionalPath, option("DIR", WORK, rich_help_panel="Output")] = None,
    costs: Annotated[OptionalPath, option("BUNDLE", COSTS, rich_help_panel="Output")] = None,
    overwrite: Annotated[bool, flag("--overwrite", OVERWRITE, rich_help_panel="Output")] = False,
    json: JsonOption = False,
    context: typer.Context = None,  # type: ignore[assignment]  # typer passes it
) -> None:
    """Train a head that drafts for a model.

    The model answers prompts, and its states are recorded. The head learns the model's probabilities from them. Then
    its drafts are measured on prompts that it has not seen. A run that was interrupted goes on if it is started again.
    """
    if bits not in (8, 16):
        raise typer.BadParameter(f"numbers are not stored in {bits} bits; give 8 or 16", param_hint="--bits")
    measured = _costs(costs) if costs else {}
    with console.loading("torch"):
        from specc.training.job import Options, train
        from specc.training.record import RecordingOptions
        from specc.training.trainer import TrainerOptions

    with console.stages() as stage:
        card = train(
            Options(
                model=model,
                recipe=recipe,
                output=output,
                data=tuple(data or ()),
                work=work or output.with_name(f"{output.name}.training"),
                recording=RecordingOptions(
                    taps=(), prompts=prompts, answer_tokens=answer_tokens, held_out=held_out, seed=seed
                ),
                self_prompts=(0 if data else prompts) if self_prompts is None else self_prompts,
                recording_minutes=math.inf if recording_minutes is None else recording_minutes,
                trainer=TrainerOptions(minutes=minutes, updates=updates, learning_rate=learning_rate, seed=seed),
                draft_vocab_size=draft_vocab_size,
                bits=bits,
                costs=measured,
                overwrite=overwrite,
                command=context.obj or "",
                stage=stage,
            )
        )
    if json:
        console.emit({"head": str(output), **card.to_json()})
    else:
        console.out().print(card_table(card, output))


def _costs(path: Path) -> Mapping[int, float]:
    """Return the cost of a step by its slots, as a multiple of a decode, from the plan of a tuned bundle.

    Raises:
        HeadError: the bundle was never tuned.
        BundleError: the bundle cannot be read.
    """
    from specc.runtime.bundle import open_bundle
    from specc.runtime.errors import HeadError
    from specc.tuning.plan import TunePlan

    plan = TunePlan.of(open_bundle(path).manifest)
    if plan is None:
        raise HeadError(f"{path} has no measured costs; run: specc tune {path}")
    ratios: dict[int, float] = {}
    for point in plan.curve:
        ratios[point.slots] = max(point.ratio, ratios.get(point.slots, 0.0))
    return ratios


def card_table(card: Card, output: Path) -> RenderableType:
    """Draw what a head reaches, and what comes next."""
    facts = console.facts()
    facts.add_row("head", f"{output}, {card.parameters / 1e6:.1f} million numbers in {card.bits} bits")
    facts.add_row("text", f"{card.recorded_tokens:,} tokens recorded, {card.trained_tokens:,} trained on")
    facts.add_row("training", f"{card.updates} updates in {card.minutes:.1f} minutes")
    depths = ", ".join(f"{rate:.0%}" for rate in card.acceptance.by_depth)
    facts.add_row("right", f"{depths} at depth 1, 2, … if the tokens before were")
    facts.add_row("chain of 4", f"{card.acceptance.chain:.2f} tokens a step on held-out prompts")
    facts.add_row("tree of 12", f"{card.acceptance.tree:.2f} tokens a step")
    facts.add_row("gain", _gain(card))
    return console.stack(facts, console.text(f"Next: specc compile {card.model} --head {output} -o model.specc"))


def _gain(card: Card) -> str:
    if card.gain is None:
        return "unknown; name a tuned bundle with --costs to predict it"
    verdict = "" if card.gain.useful else "; this head is not useful on this machine"
    return f"{card.gain.speedup:.2f} x plain decoding predicted, with chains of {card.gain.drafted}{verdict}"
