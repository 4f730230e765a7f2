"""Write the page of `specc bench --html`: charts as SVG, in one file that needs no other. Needs matplotlib."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.style import context as style
from matplotlib.ticker import MaxNLocator

from specc.bench.summary import mode_name
from specc.bench.systems import BASELINE
from specc.cli.console import size

if TYPE_CHECKING:
    from specc.bench import Report
    from specc.bench.summary import Row

INK = "#010203"  # The page shows this colour in the colour of its text, light or dark.
# Colours that also differ for readers who do not see red or green, and that show on white and on black.
PLAIN, RECIPE, DEFAULT, PEER = "#8b9099", "#3f8cd6", "#0072b2", "#d9822b"
MARKERS = ("s", "^", "D", "v", "P")  # of the kinds of engines that are not joined by a line
CHAIN = "verify, chain"  # the kind of engines whose step is a curve over slots
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "specc", "figure.facecolor": "none", "axes.facecolor": "none",
    "savefig.facecolor": "none", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.spines.top": False, "axes.spines.right": False, "font.size": 10,
    "axes.titlesize": 10, "axes.grid": True, "grid.color": PLAIN, "grid.alpha": 0.25, "axes.axisbelow": True,
    "legend.frameon": False, "axes.linewidth": 0.6, "lines.markersize": 4,
}  # fmt: skip
WIDTH = 4.6  # inches; as wide as a phone, whose letters then have the size of the page's
SMALL = (2.3, 1.7)  # inches
ROW = 0.2  # inches of a bar


def write(report: Report, file: Path, command: str) -> None:
    """Write the page of a report to a file.

    Args:
        report: the report.
        file: the file.
        command: the command that measured it, as one typed it.
    """
    environment = Environment(loader=PackageLoader("specc.cli", "."), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"title_of": mode_name, "size": size}
    *named, overall = report.categories  # The last category is the only one, or all prompts.
    contexts = dict.fromkeys(cost.context for cost in report.step_costs)
    rows = sorted(report.overall, key=lambda row: -row.tokens_per_second)
    with style(STYLE):
        charts = {
            "speed": [_svg(_speed(report, category)) for category in (overall, *named)],
            "costs": [_svg(_costs(report, context)) for context in contexts],
            "depth": [_svg(_depth(row, report)) for row in rows if row.acceptance_per_position],
        }
    page = environment.get_template("bench_page.html.j2").render(report=report, command=command, **charts)
    is_new = not file.exists()
    try:
        file.write_text(page, encoding="utf-8")
    except OSError:
        if is_new:
            file.unlink(missing_ok=True)
        raise


def _speed(report: Report, category: str) -> Figure:
    """Draw tokens a second by mode, the fastest first, with plain decoding as a line."""
    rows = [row for row in report.rows if row.category == category]
    rows.sort(key=lambda row: row.tokens_per_second)
    figure = Figure((WIDTH, 0.8 + ROW * len(rows)), layout="constrained")
    ax: Axes = figure.subplots()
    speeds = [row.tokens_per_second for row in rows]
    ranges = [row.tokens_per_second * (row.spread or 0.0) / 2 for row in rows]
    colours = [_colour(row, report) for row in rows]
    names = [f"{mode_name(row)} *" if _is_default(row, report) else mode_name(row) for row in rows]
    ax.barh(names, speeds, 0.72, xerr=ranges, color=colours, ecolor=INK, error_kw={"linewidth": 0.8})
    for row in rows:
        if (row.system, row.recipe) == BASELINE:
            ax.axvline(row.tokens_per_second, color=INK, linewidth=0.8, linestyle="--")
    ax.set_title(category, loc="left")
    ax.set_xlabel("tokens per second")
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.grid(axis="y", visible=False)
    return figure


def _costs(report: Report, context: int) -> Figure:
    """Draw milliseconds by slots after one context: a curve through the chains that verify, points for other kinds."""
    costs = [cost for cost in report.step_costs if cost.context == context]
    costs.sort(key=lambda cost: (cost.slots, cost.milliseconds))
    kinds = report.model.engine_kinds
    others = sorted({kinds[cost.engine] for cost in costs} - {CHAIN})
    figure = Figure((WIDTH, 3.2), layout="constrained")
    ax: Axes = figure.subplots()
    for kind, marker in ((CHAIN, "o"), *zip(others, MARKERS, strict=False)):
        group = [cost for cost in costs if kinds[cost.engine] == kind]
        ax.errorbar(
            [cost.slots for cost in group],
            [cost.milliseconds for cost in group],
            [cost.milliseconds * (cost.spread or 0.0) / 2 for cost in group],
            color=PEER if kind.startswith("draft") else RECIPE,
            marker=marker,
            linestyle="-" if kind == CHAIN else "none",
            linewidth=1.4,
            label=kind,
        )
    ax.set_title(f"after {context} rows", loc="left")
    widest = max(cost.slots for cost in costs)
    ax.set(xlabel="slots", ylabel="milliseconds a step", xlim=(0, 1.05 * widest + 1), ylim=(0, None))
    ax.legend()
    return figure


def _depth(row: Row, report: Report) -> Figure:
    """Draw the share of one mode's drafts that is accepted to each depth."""
    shares = row.acceptance_per_position or []
    figure = Figure(SMALL, layout="constrained")
    ax: Axes = figure.subplots()
    ax.plot(range(1, 1 + len(shares)), shares, marker="o", color=_colour(row, report), linewidth=1.4)
    ax.set_title(mode_name(row), loc="left")
    longest = max(len(other.acceptance_per_position or []) for other in report.overall)
    ax.set(ylim=(0, 1), xlim=(0.5, longest + 0.5), xlabel="depth")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _colour(row: Row, report: Report) -> str:
    """Return the colour of a mode: of plain decoding, recipes, the default recipe, or peers."""
    if row.system != BASELINE[0]:
        return PEER
    if row.recipe == BASELINE[1]:
        return PLAIN
    return DEFAULT if _is_default(row, report) else RECIPE


def _is_default(row: Row, report: Report) -> bool:
    """Return whether a mode is the bundle's default recipe."""
    return (row.system, row.recipe) == (BASELINE[0], report.model.default_recipe)


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
