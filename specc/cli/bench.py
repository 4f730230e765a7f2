"""The verb `bench`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

from specc.cli import console
from specc.cli.arguments import (
    BundleArgument,
    Count,
    DeviceOption,
    File,
    Json,
    Provider,
    Whose,
    Word,
    Words,
    commas,
    examples,
    flag,
    option,
    pairs,
)
from specc.runtime.errors import RecipeError

EXAMPLES = examples(
    "specc bench model.specc",
    "specc bench model.specc --recipes all --prompts spec_bench.jsonl --limit 5",
    "specc bench model.specc --against transformers,llama.cpp --html bench.html",
    "specc bench m.specc --against llama.cpp --peer-python llama.cpp=v/bin/python",
    "specc bench model.specc --recipes all --synthetic-acceptance 0.8,0.6,0.5",
)
RECIPES = "As --recipe, with commas; all is every recipe of the bundle."
PROMPTS = "JSON lines with prompt or turns (the first is taken), .gz too. Default: the bundle's golden prompts."
RATES = (
    "Accept by decree: a draft's first child at depth d with the d-th probability, given that those above it were, "
    "and below the last with the last; no other child. Recipes only; the text is not the model's."
)
AGAINST = "Other systems, with commas: transformers, onnxruntime-genai, openvino-genai, llama.cpp."
MODEL = "Where the original model lies, for the peers. Default: where it was compiled from."
PYTHON = "The interpreter that has a peer; may be repeated."
PEER_MODEL = "The model as a peer wants it (a .gguf file, an OpenVINO directory); may be repeated."
HTML = "Write a page with charts; needs specc[bench]."


def bench(
    bundle: BundleArgument,
    recipe: Annotated[Words, option("NAME", "Beside plain; may be repeated. Default: the bundle's default.")] = None,
    recipes: Annotated[Words, option("NAMES", RECIPES)] = None,
    prompts: Annotated[File, option("FILE", PROMPTS)] = None,
    chat: Annotated[bool, flag("--chat", "Prompts are a user's messages, for the chat template.")] = False,
    limit: Annotated[Count, option("N", "Prompts of each category at most.", min=1)] = None,
    max_new_tokens: Annotated[int, option("N", "Tokens of each answer; its end is ignored.", min=2)] = 64,
    rounds: Annotated[int, option("R", "Times that everyone runs every prompt, in turns.", min=1)] = 5,
    synthetic_acceptance: Annotated[Word, option("P,P,...", RATES)] = None,
    against: Annotated[Words, option("PEERS", AGAINST)] = None,
    model: Annotated[Word, option("DIR", MODEL)] = None,
    assistant_model: Annotated[Word, option("DIR", "A draft model for the peers that take one.")] = None,
    peer_python: Annotated[Words, option("PEER=PYTHON", PYTHON)] = None,
    peer_model: Annotated[Words, option("PEER=PATH", PEER_MODEL)] = None,
    no_guard: Annotated[bool, flag("--no-guard", "Go on drafting where it does not pay.")] = False,
    device: DeviceOption = "cpu",
    execution_provider: Provider = None,
    backend: Whose = None,
    html: Annotated[File, option("FILE", HTML)] = None,
    json: Json = False,
) -> None:
    """Measure recipes, engines and other systems.

    Everyone answers each prompt in turn, round after round: greedily, in answers of equal length, on SPECC_THREADS
    threads. Speed is tokens after the first by the time that they took, the median over rounds. A peer runs in a
    process of its own by each of its modes; one that is not installed is left out, and the remedy said.
    """
    if html and find_spec("matplotlib") is None:
        raise RecipeError("--html draws with matplotlib, which is not installed; pip install specc[bench]")
    if html and not html.absolute().parent.is_dir():
        raise RecipeError(f"--html: there is no directory {html.parent}; make it")
    from specc.bench import Options
    from specc.bench import bench as run
    from specc.bench.synthetic_acceptance import read_rates
    from specc.cli import tables_bench
    from specc.runtime.device import Device

    with console.stages() as stage:
        report = run(
            Options(
                bundle, commas([*(recipe or ()), *(recipes or ())]), prompts, chat, limit, max_new_tokens, rounds,
                read_rates(synthetic_acceptance) if synthetic_acceptance else (), commas(against or ()), model,
                assistant_model, pairs("--peer-python", peer_python or ()), pairs("--peer-model", peer_model or ()),
                Device(device, execution_provider, backend), not no_guard, stage,
            )
        )  # fmt: skip
    told = report.to_json()
    if html:
        from specc.cli import bench_page

        bench_page.write(told, html)
    for peer in told["peers"]:
        for problem in filter(None, (peer["problem"], *(f"{m}: {why}" for m, why in peer["failed"].items()))):
            console.note(f"{peer['name']}: {problem}")
    console.emit(told) if json else console.out().print(tables_bench.benched(told))
