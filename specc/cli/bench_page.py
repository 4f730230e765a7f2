"""The page of `specc bench --html`: charts as SVG in one file that needs nothing else. Needs matplotlib."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context as style
from matplotlib.ticker import MaxNLocator

from specc.bench.summary import ALL, BASELINE
from specc.cli.console import size
from specc.cli.tables_bench import name

INK = "#010203"  # in the page it is the colour of its text, light or dark
PLAIN, RECIPE, PEER = "#8b9099", "#3f8cd6", "#d9822b"
LINES = (RECIPE, PEER, "#3aa675", "#c062c8", "#d65454", "#a79a2b", "#4fb3c4", "#8878e0", PLAIN)
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "specc", "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "font.size": 10,
    "axes.titlesize": 10, "axes.grid": True, "grid.color": PLAIN, "grid.alpha": 0.25, "axes.axisbelow": True,
    "legend.frameon": False, "axes.linewidth": 0.6, "lines.markersize": 4,
}  # fmt: skip
WIDTH = 10.5
Told = Mapping[str, Any]


def write(told: Told, file: Path) -> None:
    """Write the page for what `--json` prints."""
    environment = Environment(loader=PackageLoader("specc.cli", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"name": name, "size": size}
    categories = list(dict.fromkeys(r["category"] for r in told["rows"]))
    with style(STYLE):
        figures = {
            "speed": _svg(_speed(told["rows"], categories)),
            "costs": _svg(_costs(told["step_costs"], told["model"]["verify_engines"])),
            "depth": _svg(_depth(_whole(told["rows"], categories))),
        }
    page = environment.get_template("bench_page.html.j2").render(told, categories=categories, **figures)
    file.write_text(page, encoding="utf-8")


def _whole(rows: Sequence[Told], categories: Sequence[str]) -> list[Told]:
    return [r for r in rows if r["category"] == (ALL if ALL in categories else categories[0])]


def _speed(rows: Sequence[Told], categories: Sequence[str]) -> Figure:
    """Tokens per second by mode: all prompts first, then a small chart a category, all on one scale."""
    order = [*(c for c in categories if c == ALL), *(c for c in categories if c != ALL)]
    across = min(3, len(order))
    down, modes = math.ceil(len(order) / across), len(_whole(rows, categories))
    figure = Figure((WIDTH, down * (0.75 + 0.2 * modes)), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, category in zip(axes, order, strict=False):
        mine = [r for r in rows if r["category"] == category]
        speeds = [r["tokens_per_second"] for r in mine]
        ranges = [r["tokens_per_second"] * r["spread"] / 2 for r in mine]
        ax.barh([name(r) for r in mine], speeds, 0.72, xerr=ranges, color=[_colour(r) for r in mine], ecolor=INK)
        ax.set_title(category, loc="left")
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    for i, ax in enumerate(axes):
        ax.set_visible(i < len(order))
        if i + across >= len(order):
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("tokens per second")
    return figure


def _costs(costs: Sequence[Told], verify: Sequence[str]) -> Figure:
    """Milliseconds by slots: engines that verify as a curve for each context, the others as points with a name."""
    figure = Figure((WIDTH, 4.4), layout="constrained")
    ax: Axes = figure.subplots()
    for i, context in enumerate(dict.fromkeys(c["context"] for c in costs)):
        mine = sorted((c for c in costs if c["context"] == context), key=lambda c: (c["slots"], c["milliseconds"]))
        curve, rest = ([c for c in mine if (c["engine"] in verify) == whole] for whole in (True, False))
        ax.errorbar(
            [c["slots"] for c in curve], [c["milliseconds"] for c in curve],
            [c["milliseconds"] * c["spread"] / 2 for c in curve], color=LINES[i], marker="o", linewidth=1.4,
            label=f"decode and verify, {context} rows",
        )  # fmt: skip
        if rest:
            ax.plot(
                [c["slots"] for c in rest], [c["milliseconds"] for c in rest], "x", color=LINES[i],
                label=f"drafts, {context} rows",
            )  # fmt: skip
    widest = max(c["slots"] for c in costs if c["engine"] in verify)
    ax.set(xlabel="slots", ylabel="milliseconds a step", xlim=(0, 1.05 * widest + 1), ylim=(0, None))
    ax.legend()
    return figure


def _depth(rows: Sequence[Told]) -> Figure:
    """The share of drafts that is kept to each depth."""
    figure = Figure((WIDTH, 4.0), layout="constrained")
    ax: Axes = figure.subplots()
    drawn = [r for r in rows if r["acceptance_per_position"]]
    for r, colour in zip(drawn, LINES * len(drawn), strict=False):
        shares = r["acceptance_per_position"]
        ax.plot(range(1, 1 + len(shares)), shares, marker="o", color=colour, linewidth=1.4, label=name(r))
    ax.set(xlabel="depth", ylabel="share of drafts", ylim=(0, 1), xlim=(0.8, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if drawn:
        ax.legend(ncols=2)
    return figure


def _colour(row: Told) -> str:
    return PEER if row["system"] != BASELINE[0] else PLAIN if row["recipe"] == BASELINE[1] else RECIPE


def _svg(figure: Figure) -> Markup:
    """The figure as an element of the page, as wide as there is room, in the page's colours and letters."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg ") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(
        r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", re.sub(r"(<svg )", r'\1role="img" ', svg, count=1)
    )
    return Markup(svg)
