"""The verb `tune`."""

from __future__ import annotations

from typing import Annotated

from specc.cli import console
from specc.cli.arguments import BundleArgument, Count, File, Json, examples, option

EXAMPLES = examples(
    "specc tune model.specc",
    "specc tune model.specc --prompts prompts.jsonl --limit 20",
    "specc tune model.specc --json",
)
PROMPTS = "What will be asked: JSON lines with prompt or turns, .gz too. Default: the bundle's golden prompts."


def tune(
    bundle: BundleArgument,
    prompts: Annotated[File, option("FILE", PROMPTS)] = None,
    limit: Annotated[int, option("N", "Prompts at most.", min=1)] = 8,
    max_new_tokens: Annotated[Count, option("N", "Tokens of each answer. Default: 64.", min=2)] = None,
    json: Json = False,
) -> None:
    """Choose the recipe that pays on this machine.

    Measures a step of every engine, runs every recipe on the prompts, predicts what each would make with drafts of
    every length, runs the best few by turns with plain decoding, and writes the plan into the bundle: the default
    recipe, and its parameters. Where nothing beats plain decoding by 5 %, the plan is plain decoding.
    """
    from specc.cli import tables
    from specc.tuning.tune import TOKENS
    from specc.tuning.tune import tune as run

    with console.stages() as stage:
        plan = run(bundle, prompts, max_new_tokens or TOKENS, limit, stage)
    console.emit(plan) if json else console.out().print(tables.tuned(plan))
