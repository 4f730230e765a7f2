"""What `specc bench` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from specc.bench.summary import ALL, BASELINE
from specc.cli.console import size
from specc.cli.tables import table

Told = Mapping[str, Any]
ACROSS = 3  # categories in one table


def benched(told: Told) -> RenderableType:
    """Recipes and peers on all prompts; speed-ups by category; engines; what remains in a line each."""
    rows, categories = told["rows"], list(dict.fromkeys(r["category"] for r in told["rows"]))
    whole = ALL if ALL in categories else categories[0]
    parts: list[RenderableType] = [_systems([r for r in rows if r["category"] == whole], told["model"])]
    if len(categories) > 1:
        named = [c for c in categories if c != ALL]
        for i in range(0, len(named), ACROSS):
            parts += ["", _categories(rows, named[i : i + ACROSS])]
    parts += ["", _costs(told["step_costs"]), "", *_lines(told)]
    return Group(*parts)


def _systems(rows: Sequence[Told], model: Told) -> Table:
    titles = ("tokens/s", "±", "x plain", "in all", "length", "same")
    made = table("recipe", *((t, "right") for t in titles))
    fastest = {r["system"]: max(s["tokens_per_second"] for s in rows if s["system"] == r["system"]) for r in rows}
    for r in rows:
        default = r["system"] == BASELINE[0] and r["recipe"] == model["default_recipe"]
        length = r["mean_acceptance_length"]
        made.add_row(
            name(r) + " *" * default,
            f"{r['tokens_per_second']:.1f}",
            f"{r['spread']:.0%}",
            f"{r['speedup']:.2f}",
            f"{r['end_to_end_speedup']:.2f}",
            "-" if length is None else f"{length:.2f}",
            f"{r['identical']:.0%}",
            style="bold" if r["tokens_per_second"] == fastest[r["system"]] else None,
        )
    return made


def _categories(rows: Iterable[Told], categories: Sequence[str]) -> Table:
    """Speed-ups by category."""
    found = {(name(r), r["category"]): f"{r['speedup']:.2f}" for r in rows}
    made = table("x plain", *((c, "right") for c in categories))
    for mode in dict.fromkeys(mode for mode, _ in found):
        made.add_row(mode, *(found[mode, c] for c in categories))
    return made


def name(row: Told) -> str:
    """A recipe's name, or a peer's and its mode."""
    return str(row["recipe"]) if row["system"] == BASELINE[0] else f"{row['system']} {row['recipe']}"


def _costs(costs: Sequence[Told]) -> Table:
    """Milliseconds a step, and how many steps of `decode` that is at the same context."""
    contexts = list(dict.fromkeys(c["context"] for c in costs))
    made = table("engine", ("slots", "right"), *((f"{c} rows", "right") for c in contexts), ("decodes", "right"))
    found = {(c["engine"], c["context"]): c for c in costs}
    for engine in dict.fromkeys(c["engine"] for c in costs):
        mine = [found[engine, c] for c in contexts]
        ratios = [m["milliseconds"] / found["decode", m["context"]]["milliseconds"] for m in mine]
        times = (f"{m['milliseconds']:.2f} ms" for m in mine)
        made.add_row(engine, str(mine[0]["slots"]), *times, ", ".join(f"{r:.2f}" for r in ratios))
    return made


def _lines(told: Told) -> list[RenderableType]:
    machine, settings = told["machine"], told["settings"]
    lines = ["x plain: decoding; in all: with prefill; length: of acceptance; same: answers that are plain decoding's"]
    lines += [f"{a['system']}: {_versus(a)}" for a in told["against"]]
    if plan := told["plan"]:
        speeds = (told["predicted_speedup"], told["measured_speedup"])
        predicted, measured = ("-" if s is None else f"{s:.2f}" for s in speeds)
        lines.append(f"plan: {plan.get('recipe')}, predicted {predicted} x, measured {measured} x when it was made")
    lines.append("memory: " + ", ".join(f"{n} {size(b)}" for n, b in told["memory"].items() if b is not None))
    if rates := settings["synthetic_acceptance"]:
        lines.append(f"acceptance by decree: {', '.join(f'{r:g}' for r in rates)}")
    cut = f", {settings['cut']} cut at their beginning to fit" if settings["cut"] else ""
    work = f"{settings['count']} prompts{cut}, {settings['max_new_tokens']} tokens each, {settings['rounds']} rounds"
    lines.append(f"{work}; {machine['cpu']}, {machine['threads']} threads, {told['model']['dtype']}")
    return [Text(line) for line in lines]


def _versus(found: Told) -> str:
    return f"specc's {found['own_recipe']} is {found['ratio']:.2f} x its fastest mode, {found['recipe']}"
