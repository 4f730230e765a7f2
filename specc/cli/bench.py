"""The verb `bench`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from specc.cli import console
from specc.cli.arguments import (
    BackendOption,
    BundleArgument,
    DeviceOption,
    JsonOption,
    NativeCodeOption,
    OptionalInt,
    OptionalPath,
    OptionalStr,
    ProviderOption,
    StrList,
    examples,
    flag,
    option,
    pairs,
    split_commas,
)
from specc.cli.output_file import check_file
from specc.cli.terms import LENGTH_LINE, LENGTH_TITLE, SLOTS_LINE
from specc.runtime.errors import RecipeError
from specc.runtime.extras import package

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from specc.bench import Report

EXAMPLES = examples(
    "specc bench model.specc",
    "specc bench model.specc --recipe all --prompts spec_bench.jsonl --limit 5",
    "specc bench model.specc --against transformers,llama.cpp --html bench.html",
    "specc bench m.specc --against llama.cpp --peer-python llama.cpp=v/bin/python",
    "specc bench model.specc --recipe all --synthetic-acceptance 0.8,0.6,0.5",
)
RECIPE = (
    "Measure this recipe, or several with commas, beside plain decoding. May be repeated. 'all' is every recipe of the "
    "bundle. Default: the bundle's default recipe."
)
RECIPES = "Another name of --recipe, which older scripts use. Both may be given."
PROMPTS = (
    "A file of prompts: JSON lines with prompt or turns, plain or .gz. Of several turns, the first is used. "
    "Default: the bundle's golden prompts."
)
CHAT = "Treat each prompt as a user's message, for the model's chat template."
LIMIT = "The largest number of prompts in each category."
TOKENS = "The number of tokens of each answer. Answers do not end earlier."
ROUNDS = "The number of rounds. In each round, every system runs every prompt."
VARY = (
    "Also run a recipe with each of these values of a parameter. For a lossy recipe, the column 'changed' says how far "
    "the answers go from plain decoding. May be repeated."
)
RATES = (
    "Accept drafts with fixed probabilities. The n-th number is the probability that the first child at depth n is "
    "accepted, if all above it were. The last number holds for all greater depths. No other child is accepted. Works "
    "for recipes, not for peers. The text is not the model's."
)
AGAINST = "Measure these peers too, with commas: transformers, onnxruntime-genai, openvino-genai, llama.cpp."
MODEL = "The directory of the original model, for the peers. Default: the model that the bundle was compiled from."
ASSISTANT = "The directory of a draft model, for the peers that take one."
PYTHON = "The Python interpreter that has a peer. May be repeated."
PEER_MODEL = "The model in a peer's own form, such as a .gguf file or an OpenVINO directory. May be repeated."
EXACT = (
    "Run every step at one width, the number of token slots of an engine call. Plain decoding runs at the width of the "
    "default recipe. It shows how much slower exact decoding is."
)
NO_GUARD = "Do not stop drafts that make decoding slower."
HTML = "Write a page with charts to this file. Needs specc-compiler[bench]."
CATEGORIES_IN_A_TABLE = 3  # More columns do not fit on 80 characters.
LEGEND = (
    "±: how far the rounds lie apart, the middle half of them, as a share of the speed",
    "x plain: speed of decoding, as a multiple of plain decoding's",
    "in all: as x plain, with prefill",
    LENGTH_LINE,
    "same: answers whose tokens are those of plain decoding",
    f"{SLOTS_LINE}; N rows: after N rows of text in the cache; decodes: times as long as decode",
)
CHANGED_LINE = "changed: tokens that are not those of plain decoding at their place"


def command(
    ctx: typer.Context,
    bundle: BundleArgument,
    recipe: Annotated[StrList, option("NAME", RECIPE, rich_help_panel="Recipes")] = None,
    recipes: Annotated[StrList, option("NAMES", RECIPES, hidden=True)] = None,
    vary: Annotated[StrList, option("RECIPE.PARAMETER=V,V", VARY, rich_help_panel="Recipes")] = None,
    prompts: Annotated[OptionalPath, option("FILE", PROMPTS, rich_help_panel="Prompts")] = None,
    chat: Annotated[bool, flag("--chat", CHAT, rich_help_panel="Prompts")] = False,
    limit: Annotated[OptionalInt, option("N", LIMIT, min=1, rich_help_panel="Prompts")] = None,
    max_new_tokens: Annotated[int, option("N", TOKENS, min=2, rich_help_panel="Prompts")] = 64,
    rounds: Annotated[int, option("R", ROUNDS, min=1, rich_help_panel="Prompts")] = 5,
    synthetic_acceptance: Annotated[OptionalStr, option("P,P,...", RATES, rich_help_panel="Recipes")] = None,
    against: Annotated[StrList, option("PEERS", AGAINST, rich_help_panel="Peers")] = None,
    model: Annotated[OptionalStr, option("DIR", MODEL, rich_help_panel="Peers")] = None,
    assistant_model: Annotated[OptionalStr, option("DIR", ASSISTANT, rich_help_panel="Peers")] = None,
    peer_python: Annotated[StrList, option("PEER=PYTHON", PYTHON, rich_help_panel="Peers")] = None,
    peer_model: Annotated[StrList, option("PEER=PATH", PEER_MODEL, rich_help_panel="Peers")] = None,
    no_guard: Annotated[bool, flag("--no-guard", NO_GUARD, rich_help_panel="Recipes")] = False,
    exact: Annotated[bool, flag("--exact", EXACT, rich_help_panel="Recipes")] = False,
    device: DeviceOption = "cpu",
    execution_provider: ProviderOption = None,
    backend: BackendOption = None,
    allow_native_code: NativeCodeOption = False,
    html: Annotated[OptionalPath, option("FILE", HTML, rich_help_panel="Output")] = None,
    json: JsonOption = False,
) -> None:
    """Measure recipes, engines and other systems.

    All systems answer each prompt in turn, round after round. They decode greedily, give answers of equal length, and
    use SPECC_THREADS threads. The speed is the number of tokens after the first, divided by their time. It is the
    median over the rounds. Each peer runs in a process of its own, in each of its modes. A peer that is not installed
    is left out, and a line says how to install it.
    """
    if html:
        _check_page(html)
    from specc.bench import Options, bench
    from specc.bench.peer_jobs import PeerOptions
    from specc.bench.synthetic_acceptance import read_rates
    from specc.machine import warn_if_busy
    from specc.runtime.device import Device

    warn_if_busy()
    with console.stages() as stage:
        report = bench(
            Options(
                bundle=bundle,
                recipes=split_commas("--recipe", [*(recipe or ()), *(recipes or ())]),
                vary=vary or (),
                prompts=prompts,
                chat=chat,
                limit=limit,
                max_new_tokens=max_new_tokens,
                rounds=rounds,
                rates=read_rates(synthetic_acceptance) if synthetic_acceptance else (),
                peers=PeerOptions(
                    names=split_commas("--against", against or ()),
                    model=model,
                    assistant=assistant_model,
                    pythons=pairs("--peer-python", peer_python or ()),
                    models=pairs("--peer-model", peer_model or ()),
                ),
                device=Device(device, execution_provider, backend),
                allow_native_code=allow_native_code,
                guard=not no_guard,
                exact=exact,
                stage=stage,
            )
        )
    _note_problems(report)
    if json:
        console.emit(report.to_json())
    else:
        console.show(report_tables(report))
    if html:  # After the tables, which a full disk does not take away.
        from specc.cli import bench_page

        with console.naming(html):
            bench_page.write(report, html, ctx.find_root().obj or "specc bench")


def report_tables(report: Report) -> RenderableType:
    """Draw a report: systems on all prompts, speed-ups by category, engines, and one line for each other fact."""
    parts: list[RenderableType] = [_systems(report)]
    if len(report.categories) > 1:
        named = report.categories[:-1]  # The last category is all prompts.
        for i in range(0, len(named), CATEGORIES_IN_A_TABLE):
            parts += ["", _categories(report, named[i : i + CATEGORIES_IN_A_TABLE])]
    parts += ["", _costs(report), "", *(console.text(line) for line in _lines(report))]
    return console.stack(*parts)


def _check_page(html: Path) -> None:
    """Refuse a page that cannot be drawn or written, before anything is measured.

    Raises:
        RecipeError: matplotlib is not installed, or nothing can be written there.
    """
    if find_spec("matplotlib") is None:
        raise RecipeError(f"--html draws with matplotlib, which is not installed; pip install {package('bench')}")
    check_file(html, "--html")


def _note_problems(report: Report) -> None:
    """Say on standard error which peers and which of their modes were left out, and why."""
    for peer in report.peers:
        if peer.problem:
            console.note(f"{peer.name}: {peer.problem}")
        for mode, reason in peer.failed.items():
            console.note(f"{peer.name}: {mode}: {reason}")


def _systems(report: Report) -> Table:
    """Draw each mode on all prompts. A star marks the default recipe, bold letters the fastest mode of a system."""
    from specc.bench.summary import mode_name
    from specc.bench.systems import BASELINE

    near = ["lossless"] if any(word != "yes" for word in report.exactness.values()) else []
    lossy = ["changed"] if "no" in report.exactness.values() else []
    titles = ("tokens/s", "±", "x plain", "in all", LENGTH_TITLE, "same", *lossy, *near)
    table = console.table("recipe", *((each, "right") for each in titles))
    fastest: dict[str, float] = {}
    for row in report.overall:
        fastest[row.system] = max(row.tokens_per_second, fastest.get(row.system, 0.0))
    for row in report.overall:
        is_default = (row.system, row.recipe) == (BASELINE[0], report.model.default_recipe)
        length = row.mean_acceptance_length
        table.add_row(
            f"{mode_name(row)} *" if is_default else mode_name(row),
            f"{row.tokens_per_second:.1f}",
            "-" if row.spread is None else f"{row.spread:.0%}",
            f"{row.speedup:.2f}",
            f"{row.end_to_end_speedup:.2f}",
            "-" if length is None else f"{length:.2f}",
            f"{row.identical:.0%}",
            *([f"{row.changed:.0%}"] if lossy else []),
            *(
                [report.exactness.get(row.recipe, "-").split(",")[0] if row.system == BASELINE[0] else "-"]
                if near
                else []
            ),
            style="bold" if row.tokens_per_second == fastest[row.system] else None,
        )
    return table


def _categories(report: Report, categories: Sequence[str]) -> Table:
    """Draw the speed-up of each mode on some categories."""
    from specc.bench.summary import mode_name

    speedups = {(mode_name(row), row.category): f"{row.speedup:.2f}" for row in report.rows}
    table = console.table("x plain", *((category, "right") for category in categories))
    for mode in dict.fromkeys(mode for mode, _ in speedups):
        table.add_row(mode, *(speedups[mode, category] for category in categories))
    return table


def _costs(report: Report) -> Table:
    """Draw the time of a step of each engine, and how many times that of `decode` at the same context it is."""
    contexts = list(dict.fromkeys(cost.context for cost in report.step_costs))
    table = console.table(
        "engine", ("slots", "right"), *((f"{c} rows", "right") for c in contexts), ("decodes", "right")
    )
    costs = {(cost.engine, cost.context): cost for cost in report.step_costs}
    for engine in dict.fromkeys(cost.engine for cost in report.step_costs):
        row = [costs[engine, context] for context in contexts]
        ratios = [cost.milliseconds / costs["decode", cost.context].milliseconds for cost in row]
        times = [f"{cost.milliseconds:.2f} ms" for cost in row]
        table.add_row(engine, str(row[0].slots), *times, ", ".join(f"{ratio:.2f}" for ratio in ratios))
    return table


def _lines(report: Report) -> list[str]:
    """Write the legend and the other facts of a report, one on each line."""
    settings, machine, plan = report.settings, report.machine, report.plan
    lossy = [CHANGED_LINE] if "no" in report.exactness.values() else []
    lines = [*LEGEND, *lossy, *(f"warning: {line}" for line in report.warnings)]
    near = {word for word in report.exactness.values() if word.startswith("near")}
    lines += [f"{word}: tokens depend on the width of a step, but not with --exact" for word in sorted(near)]
    for other in report.against:
        lines.append(
            f"{other.system}: specc's {other.own_recipe} is {other.ratio:.2f} x its fastest mode, {other.recipe}"
        )
    if plan:
        predicted, measured = plan.predicted_speedup, plan.measured_speedup
        lines.append(f"plan: {plan.recipe}, predicted {predicted:.2f} x, measured {measured:.2f} x by specc tune")
    sizes = [f"{name} {console.size(size)}" for name, size in report.memory.items() if size is not None]
    lines.append(f"memory: {', '.join(sizes)}")
    if rates := settings.synthetic_acceptance:
        lines.append(f"synthetic acceptance: {', '.join(f'{rate:g}' for rate in rates)}")
    cut = f" ({settings.cut} cut at the beginning to fit)" if settings.cut else ""
    lines.append(f"{settings.count} prompts{cut}, {settings.max_new_tokens} tokens each, {settings.rounds} rounds")
    gpu = f"{machine.gpu}, " if machine.gpu else ""
    lines.append(f"{gpu}{machine.cpu}, {machine.threads} threads, {report.model.dtype}")
    return lines
