"""The verb `train`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specc.cli import console
from specc.cli.arguments import JsonOption, OptionalInt, OptionalPath, OptionalStr, examples, flag, option
from specc.cli.train_options import check_exclusive, check_read

if TYPE_CHECKING:
    from rich.console import RenderableType

    from specc.training.training_card import TrainingCard

EXAMPLES = examples(
    "specc train HuggingFaceTB/SmolLM2-135M-Instruct --recipe eagle3 -o head",
    "specc train ./model --recipe eagle3 -o head --data prompts.jsonl --minutes 30",
    "specc train ./model --recipe eagle3 --head head -o better --seed 1 --minutes 30",
    "specc train ./model --recipe medusa -o head --data book.txt --data code.py",
    "specc train ./model --recipe eagle3 -o head --costs model.specc --json",
    "torchrun --nproc-per-node 4 -m specc train ./model --recipe eagle3 -o head",
    "specc train ./model --recipe draft-model -o small --draft-layers 3",
    "specc train ./model --recipe relaxed-recursive -o small --loops 3",
    "specc train ./model --recipe tr-jacobi -o noisy --learning-rate 2e-4",
)
MODEL = "A hub id, a directory with a tokenizer and weights, or a GGUF file."
RECIPE = (
    "The recipe whose head is trained, such as eagle3 or medusa, or draft-model, s2d or relaxed-recursive for a draft "
    "model, or tr-jacobi for the model itself; a wrong name lists them all."
)
OUTPUT = "The directory of the head, of the draft model, or of the model, to write."
HEAD = (
    "A head of 'specc train' to begin with, of the same model and recipe. It keeps its vocabulary. Figures on held-out "
    "prompts are fair if --data has prompts that it has not seen. Default: begin in closed form."
)
LAYERS = "The number of layers of a draft model that is cut from the model. It is as wide as the model."
LOOPS = (
    "How often a recursive draft model runs its block of layers, which are the model's layers divided by this number. "
    "Default: 3, or the next number that divides the layers."
)
RANK = (
    "The rank of what each layer of a recursive draft model adds to a shared matrix. Default: a 16th of the hidden "
    "size."
)
WITH_MODEL = (
    "Train the model itself together with the head of lexical-units or speculative-streaming. Then OUT is a model's "
    "directory, with the head in OUT/head. The recipe tr-jacobi always trains the model."
)
ASSISTANT = (
    "A draft model with the model's tokenizer: the one to begin with, in place of one that is cut from the model; or "
    "the one whose drafts a head of specdec-plus-plus judges."
)
DIVERGENCE = "The loss by which a draft model is distilled: forward-kl, reverse-kl, jensen-shannon or total-variation."
OWN_TEXT = (
    "The share of the text that a draft model writes itself, from 0 to 1. The model writes the rest. Default: 0.5, or "
    "0 with --online."
)
ONLINE = (
    "Learn from those tokens alone that the draft model did not foresee, and change matrices alone: then 'specc swap' "
    "puts them into a bundle."
)
ANSWERS = (
    "The answers that 'specc generate --prompts' wrote to the prompts of --data. A draft model then learns from what "
    "was served. Default: the model answers anew."
)
DATA = (
    "A file of prompts that the model answers: JSON lines with prompt, turns or messages, plain or .gz. A file that "
    "does not end in .jsonl, .json or .gz is text, whose pieces the model continues. May be repeated. Default: "
    "prompts that ship with specc."
)
RECORDING_MINUTES = (
    "The minutes after which the model answers no more prompts. What was recorded before counts in addition. Default: "
    "all prompts are answered."
)
DEVICE = (
    "Where the model and the training run: cpu, cuda, cuda:1 or auto, a GPU if there is one. torchrun starts several "
    "processes, and gives each a GPU of its own."
)
BATCH = "The tokens of a batch. Default: 1536, or 12288 on a GPU."
MINUTES = "The minutes of training. Recording, which comes before, is not counted."
ACCUMULATE = "The batches of an update, in each process. More of them do as larger batches would, in less memory."
UPDATES = "The number of updates, in place of --minutes. Two runs then give equal weights on one processor."
PROMPTS = "The largest number of prompts of the files, or of those that ship with specc."
SELF_PROMPTS = (
    "The number of prompts that the model writes itself, besides. Default: as many as --prompts, or none if there is "
    "--data."
)
ANSWER = "The largest number of tokens of an answer."
HELD_OUT = "The number of prompts that are kept for the evaluation, a fifth of all at most."
VOCABULARY = "The number of tokens that the head knows: the most frequent ones."
RATE = "The learning rate."
BITS = "How many bits the numbers of a matrix have on disk: 16 or 8."
SEED = "The seed of the order of the text, of sampled answers and of the updates."
LARGEST_SEED = 2**31 - 1  # Products of it with other numbers are seeds of torch, of 64 bits.
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
    batch_tokens: Annotated[OptionalInt, option("N", BATCH, min=16, rich_help_panel="Training")] = None,
    accumulate: Annotated[int, option("N", ACCUMULATE, min=1, rich_help_panel="Training")] = 1,
    device: Annotated[str, option("NAME", DEVICE, rich_help_panel="Training")] = "auto",
    seed: Annotated[int, option("S", SEED, min=0, max=LARGEST_SEED, rich_help_panel="Training")] = 0,
    draft_vocab_size: Annotated[int, option("N", VOCABULARY, min=8, rich_help_panel="Head")] = 8192,
    head: Annotated[OptionalPath, option("DIR", HEAD, rich_help_panel="Head")] = None,
    with_model: Annotated[bool, flag("--with-model", WITH_MODEL, rich_help_panel="Training")] = False,
    draft_layers: Annotated[int, option("N", LAYERS, min=1, rich_help_panel="Draft model")] = 2,
    loops: Annotated[OptionalInt, option("N", LOOPS, min=2, rich_help_panel="Draft model")] = None,
    rank: Annotated[OptionalInt, option("R", RANK, min=1, rich_help_panel="Draft model")] = None,
    assistant_model: Annotated[OptionalStr, option("MODEL", ASSISTANT, rich_help_panel="Draft model")] = None,
    divergence: Annotated[str, option("NAME", DIVERGENCE, rich_help_panel="Draft model")] = "forward-kl",
    own_text: Annotated[float | None, option("S", OWN_TEXT, min=0.0, max=1.0, rich_help_panel="Draft model")] = None,
    answers: Annotated[OptionalPath, option("FILE", ANSWERS, rich_help_panel="Draft model")] = None,
    online: Annotated[bool, flag("--online", ONLINE, rich_help_panel="Draft model")] = False,
    bits: Annotated[int, option("B", BITS, min=8, max=16, rich_help_panel="Output")] = 16,
    work: Annotated[OptionalPath, option("DIR", WORK, rich_help_panel="Output")] = None,
    costs: Annotated[OptionalPath, option("BUNDLE", COSTS, rich_help_panel="Output")] = None,
    overwrite: Annotated[bool, flag("--overwrite", OVERWRITE, rich_help_panel="Output")] = False,
    json: JsonOption = False,
    context: typer.Context = None,  # type: ignore[assignment]  # typer passes it
) -> None:
    """Train a head, or a draft model, that drafts for a model, or the model itself.

    The model answers prompts, and its states are recorded. The head learns the model's probabilities from them. Then
    its drafts are measured on prompts that it has not seen. A run that was interrupted goes on if it is started again.
    A draft model learns them from the model's answers and from its own, without recorded states. A model that
    is trained itself learns from its answers, and is another model afterwards.
    """
    if bits not in (8, 16):
        raise typer.BadParameter(f"numbers are not stored in {bits} bits; give 8 or 16", param_hint="--bits")
    check_exclusive(context)
    from specc.training.places import NOTES, Places
    from specc.training.prompt_files import read_file

    work = work or output.parent / f"{output.name}.training"
    sources = {"MODEL": model, "--head": head, "--assistant-model": assistant_model, "--answers": answers}
    Places.of(output, work, overwrite, sources | {f"--data {file}": file for file in data or ()}).check()
    if answers is None:  # Of what was served, a line without an answer may have any form.
        for file in data or ():
            read_file(file)
    measured = _costs(costs) if costs else {}
    with console.loading("torch"):
        from specc.training import processes
        from specc.training.device import default_batch, device_named
        from specc.training.job import DraftChoice, Options
        from specc.training.jobs import training_of
        from specc.training.record import RecordingOptions
        from specc.training.trainer import TrainerOptions

    train = training_of(recipe, with_model)
    check_read(context, recipe, with_model)
    place = device_named(device)
    is_first = True  # of the processes that train together
    is_resumed = (work / NOTES).is_file()
    try:
        # `with place` lets torch make all new tensors on that device.
        with processes.joined(place), _progress(processes.is_first()) as stage, place:
            is_first = processes.is_first()
            if is_resumed and is_first:
                console.note(f"recordings and checkpoints in {work} that fit are used again")
            card = train(
                Options(
                    model=model,
                    recipe=recipe,
                    output=output,
                    data=tuple(data or ()),
                    work=work,
                    recording=RecordingOptions(
                        taps=(), prompts=prompts, answer_tokens=answer_tokens, held_out=held_out, seed=seed
                    ),
                    self_prompts=(0 if data else prompts) if self_prompts is None else self_prompts,
                    recording_minutes=math.inf if recording_minutes is None else recording_minutes,
                    trainer=TrainerOptions(
                        minutes=minutes,
                        updates=updates,
                        learning_rate=learning_rate,
                        tokens=batch_tokens or default_batch(place),
                        accumulate=accumulate,
                        seed=seed,
                        every=min(TrainerOptions.every, 6 * minutes),  # a tenth of a short training
                    ),
                    draft=DraftChoice(
                        source=assistant_model or "",
                        layers=draft_layers,
                        loops=loops,
                        rank=rank,
                        divergence=divergence,
                        own_text=(0.0 if online else 0.5) if own_text is None else own_text,
                        online=online,
                        answers=answers,
                    ),
                    draft_vocab_size=draft_vocab_size,
                    bits=bits,
                    head=head,
                    costs=measured,
                    costs_from=costs,
                    overwrite=overwrite,
                    command=processes.command(context.obj or ""),
                    stage=stage,
                )
            )
    except (KeyboardInterrupt, SystemExit):  # SystemExit is what SIGTERM raises
        if work.exists() and is_first:
            console.note(f"interrupted; the same command goes on from {work}")
        raise
    if json and is_first:
        console.emit({card.kind: str(output), **card.to_json()})
    elif is_first:
        console.show(card_table(card, output))


@contextmanager
def _progress(is_shown: bool) -> Iterator[console.Stage]:
    """Show progress, unless another process of this training does."""
    if not is_shown:
        yield lambda title, done, total: None
        return
    with console.stages() as stage:
        yield stage


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


def card_table(card: TrainingCard, output: Path) -> RenderableType:
    """Draw what a head or a draft model reaches, and what comes next."""
    facts = console.facts()
    for title, value in card.summary(str(output)).items():
        facts.add_row(title, value)
    return console.stack(facts, console.text(f"Next: {card.next_step(str(output))}"))
