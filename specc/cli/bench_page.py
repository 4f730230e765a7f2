"""Write the page of `specc bench --html`: charts as SVG, in one file that needs no other. Needs matplotlib."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context as style
from matplotlib.ticker import MaxNLocator

from specc.bench.systems import BASELINE
from specc.cli.bench import title
from specc.cli.console import size

if TYPE_CHECKING:
    from specc.bench import Report
    from specc.bench.summary import Row

INK = "#010203"  # The page shows this colour in the colour of its text, light or dark.
PLAIN, RECIPE, PEER = "#8b9099", "#3f8cd6", "#d9822b"
LINES = (RECIPE, PEER, "#3aa675", "#c062c8", "#d65454", "#a79a2b", "#4fb3c4", "#8878e0", PLAIN)
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "specc", "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "font.size": 10,
    "axes.titlesize": 10, "axes.grid": True, "grid.color": PLAIN, "grid.alpha": 0.25, "axes.axisbelow": True,
    "legend.frameon": False, "axes.linewidth": 0.6, "lines.markersize": 4,
}  # fmt: skip
WIDTH = 10.5  # inches
CHARTS_IN_A_ROW = 3


def write(report: Report, file: Path) -> None:
    """Write the page of a report to a file."""
    environment = Environment(loader=PackageLoader("specc.cli", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"title_of": title, "size": size}
    with style(STYLE):
        charts = {"speed": _svg(_speed(report)), "costs": _svg(_costs(report)), "depth": _svg(_depth(report.overall))}
    page = environment.get_template("bench_page.html.j2").render(report=report, **charts)
    file.write_text(page, encoding="utf-8")


def _speed(report: Report) -> Figure:
    """Draw tokens a second by mode: a chart on all prompts, then a small chart for each category, on one scale."""
    *named, overall = report.categories  # The last category is the only one, or all prompts.
    order = [overall, *named]
    across = min(CHARTS_IN_A_ROW, len(order))
    down, modes = math.ceil(len(order) / across), len(report.overall)
    figure = Figure((WIDTH, down * (0.75 + 0.2 * modes)), layout="constrained")
    axes = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).ravel()
    for ax, category in zip(axes, order, strict=False):
        rows = [row for row in report.rows if row.category == category]
        speeds = [row.tokens_per_second for row in rows]
        ranges = [row.tokens_per_second * row.spread / 2 for row in rows]
        colours = [_colour(row) for row in rows]
        ax.barh([title(row) for row in rows], speeds, 0.72, xerr=ranges, color=colours, ecolor=INK)
        ax.set_title(category, loc="left")
        ax.grid(axis="y", visible=False)
    axes[0].invert_yaxis()
    for i, ax in enumerate(axes):
        ax.set_visible(i < len(order))
        if i + across >= len(order):
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("tokens per second")
    return figure


def _costs(report: Report) -> Figure:
    """Draw milliseconds by slots: a curve through the engines that verify for each context, points for the others."""
    verify = set(report.model.verify_engines)
    figure = Figure((WIDTH, 4.4), layout="constrained")
    ax: Axes = figure.subplots()
    for i, context in enumerate(dict.fromkeys(cost.context for cost in report.step_costs)):
        costs = [cost for cost in report.step_costs if cost.context == context]
        costs.sort(key=lambda cost: (cost.slots, cost.milliseconds))
        curve = [cost for cost in costs if cost.engine in verify]
        drafts = [cost for cost in costs if cost.engine not in verify]
        ax.errorbar(
            [cost.slots for cost in curve],
            [cost.milliseconds for cost in curve],
            [cost.milliseconds * cost.spread / 2 for cost in curve],
            color=LINES[i],
            marker="o",
            linewidth=1.4,
            label=f"decode and verify, {context} rows",
        )
        if drafts:
            ax.plot(
                [cost.slots for cost in drafts],
                [cost.milliseconds for cost in drafts],
                "x",
                color=LINES[i],
                label=f"drafts, {context} rows",
            )
    widest = max(cost.slots for cost in report.step_costs if cost.engine in verify)
    ax.set(xlabel="slots", ylabel="milliseconds a step", xlim=(0, 1.05 * widest + 1), ylim=(0, None))
    ax.legend()
    return figure


def _depth(rows: Sequence[Row]) -> Figure:
    """Draw the share of drafts that is accepted to each depth."""
    figure = Figure((WIDTH, 4.0), layout="constrained")
    ax: Axes = figure.subplots()
    curves = [(title(row), row.acceptance_per_position) for row in rows if row.acceptance_per_position]
    for i, (label, shares) in enumerate(curves):
        depths = range(1, 1 + len(shares))
        ax.plot(depths, shares, marker="o", color=LINES[i % len(LINES)], linewidth=1.4, label=label)
    ax.set(xlabel="depth", ylabel="share of drafts", ylim=(0, 1), xlim=(0.8, None))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if curves:
        ax.legend(ncols=2)
    return figure


def _colour(row: Row) -> str:
    """Return the colour of a bar: one for plain decoding, one for recipes, one for peers."""
    if row.system != BASELINE[0]:
        return PEER
    return PLAIN if row.recipe == BASELINE[1] else RECIPE


def _svg(figure: Figure) -> Markup:
    """Return a figure as an element of the page.

    It is as wide as the page gives room, and has the page's text colour and letters.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg ") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = svg.replace("<svg ", '<svg role="img" ', 1)
    return Markup(re.sub(r'(<svg [^>]*?)width="[^"]*" height="[^"]*"', r"\1", svg))
