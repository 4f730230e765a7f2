"""The verb `tune`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from specc.cli import console
from specc.cli.arguments import (
    BundleArgument,
    JsonOption,
    NativeCodeOption,
    OptionalInt,
    OptionalPath,
    examples,
    option,
)
from specc.cli.terms import SLOTS_LINE
from specc.tuning.policy import TUNING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from specc.tuning.plan import TunePlan

EXAMPLES = examples(
    "specc tune model.specc",
    "specc tune model.specc --prompts prompts.jsonl --limit 20",
    "specc tune model.specc --json",
)
PROMPTS = (
    "A file of prompts like those that will be asked: JSON lines with prompt or turns, plain or .gz. "
    "Default: the bundle's golden prompts."
)
LIMIT = "The largest number of prompts."
DEEP, SURE = "deep", "sure to"  # words of the column "drafts of"
CURVE_LINE = f"{SLOTS_LINE}; after N: with N rows of text in the cache; x: times as long as with one slot"
TOKENS = f"The number of tokens of each answer. Default: {TUNING.tokens}."


def command(
    bundle: BundleArgument,
    prompts: Annotated[OptionalPath, option("FILE", PROMPTS)] = None,
    limit: Annotated[int, option("N", LIMIT, min=1)] = TUNING.prompts,
    max_new_tokens: Annotated[OptionalInt, option("N", TOKENS, min=2)] = None,
    allow_native_code: NativeCodeOption = False,
    json: JsonOption = False,
) -> None:
    """Choose the recipe that pays on this machine.

    Measures a step of every engine, and runs every recipe on the prompts. Predicts the speed of each recipe with
    drafts of every length, depth and confidence, and runs the best recipes again in turns with plain decoding. Then
    it writes the plan into the bundle: the default recipe, and the parameters of all recipes. If no recipe is clearly
    faster than plain decoding, the plan is plain decoding.
    """
    from specc.machine import warn_if_busy
    from specc.tuning.tune import tune

    warn_if_busy()
    with console.stages() as stage:
        plan = tune(bundle, prompts, max_new_tokens or TUNING.tokens, limit, stage, allow_native_code=allow_native_code)
    if json:
        console.emit(plan.to_json())
    else:
        console.show(plan_table(plan))


def plan_table(plan: TunePlan) -> RenderableType:
    """Draw a plan: the predicted and measured speed-ups, the choice, and the cost curve."""
    table = console.table("recipe", ("drafts of", "right"), ("predicted", "right"), ("measured", "right"))
    finalists = {finalist.recipe: finalist for finalist in plan.tried}
    for name, predicted in plan.predicted.items():
        title = f"{name} *" if name == plan.recipe else name
        lengths, measured = "", ""
        if finalist := finalists.get(name):
            lengths, measured = _sizes(finalist.parameters), f"{finalist.measured_speedup:.2f}"
        table.add_row(title, lengths, f"{predicted:.2f}", measured)
    notes = [*_notes(plan), *_legend([_sizes(finalist.parameters) for finalist in plan.tried])]
    return console.stack(table, console.text("\n".join(notes)), "", _curve(plan), console.text(CURVE_LINE))


def _legend(sizes: Sequence[str]) -> list[str]:
    """Say in one line what the sizes of drafts mean, with the words that are among them. No sizes need no line."""
    if not any(sizes):
        return []
    deep = ["deep: levels of their tree"] if any(DEEP in size for size in sizes) else []
    sure = ["sure to: a draft ends where its drafter is less sure"] if any(SURE in size for size in sizes) else []
    return ["; ".join(["drafts of: their tokens at most", *deep, *sure])]


def _sizes(parameters: Mapping[str, Any]) -> str:
    """Say how large drafts are: their tokens, the levels of a tree, and the confidence below which a chain ends."""
    sizes = " + ".join(str(value) for key, value in parameters.items() if key.endswith("_tokens"))
    if depth := parameters.get("max_depth"):
        sizes += f", {depth} {DEEP}"
    if threshold := parameters.get("assistant_confidence_threshold"):
        sizes += f", {SURE} {threshold:g}"
    return sizes


def _notes(plan: TunePlan) -> list[str]:
    """Say in words what the plan is, and what else would be faster."""
    if plan.recipe == "plain":
        least = f"{TUNING.least_speedup - 1:.0%}"
        notes = [f"No recipe is {least} faster than plain decoding here, so the plan is plain decoding."]
    else:
        notes = [f"* The plan: {plan.recipe}, {plan.measured_speedup:.2f} times as fast as plain decoding."]
    if plan.trees:
        names = ", ".join(plan.trees)
        notes.append(
            f"Other trees would be faster: {names}. A compile with --tune takes them where tree is a parameter."
        )
    if plan.single_threaded:
        notes.append(f"These engines run faster on one thread: {', '.join(plan.single_threaded)}.")
    return notes


def _curve(plan: TunePlan) -> Table:
    """Draw a step of the target by slots and context: the time, and how many times (x) one slot's time it is."""
    points = {(point.slots, point.context): point for point in plan.curve}
    contexts = sorted({point.context for point in plan.curve})
    table = console.table("slots, measured", *((f"after {context}", "right") for context in contexts))
    for slots in sorted({point.slots for point in plan.curve}):
        row = [points[slots, context] for context in contexts]
        table.add_row(str(slots), *(f"{point.milliseconds:.2f} ms  {point.ratio:.2f} x" for point in row))
    return table
