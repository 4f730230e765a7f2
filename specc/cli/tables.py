"""Tables that the verbs print."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from specc.cli.console import size
from specc.recipes import Method
from specc.runtime.bundle import Bundle

STYLES: dict[str, dict[str, Any]] = {
    "right": {"justify": "right", "no_wrap": True},
    "dim": {"style": "dim", "no_wrap": True},
    "whole": {"no_wrap": True},
    "fold": {"overflow": "fold"},
}


def table(*columns: str | tuple[str, str], header: bool = True) -> Table:
    """A table with these columns, each a title or a title and a style; the first column never wraps."""
    box, padding = (SIMPLE_HEAD, (0, 1, 0, 0)) if header else (None, (0, 2, 0, 0))
    made = Table(box=box, padding=padding, show_header=header, show_edge=False, pad_edge=False)
    for i, column in enumerate(columns):
        title, style = (column, "fold" if i else "whole") if isinstance(column, str) else column
        made.add_column(title, **STYLES[style])
    return made


def compiled_json(bundle: Bundle, seconds: float, peak_rss_bytes: int) -> dict[str, Any]:
    """What `specc compile --json` prints."""
    manifest = bundle.manifest
    return {
        "bundle": str(bundle.path),
        "engines": [
            {
                "name": e.name,
                "slots": e.block.slots,
                "layers": list(e.layers),
                "file": e.file,
                "bytes": manifest.files[e.file].bytes,
                "backend": e.backend,
            }
            for e in manifest.engines
        ],
        "bytes": sum(f.bytes for f in manifest.files.values()),
        "weights_bytes": manifest.files[manifest.weights].bytes,
        "default_recipe": manifest.default_recipe,
        "seconds": round(seconds, 3),
        "peak_rss_bytes": peak_rss_bytes,
        "recipes": [dict(row) for row in manifest.measured],
    }


def compiled(told: Mapping[str, Any]) -> RenderableType:
    """The end of a compile: the recipes as measured, and the bundle."""
    sizes = f"{size(told['bytes'])}, weights {size(told['weights_bytes'])}, {len(told['engines'])} engines"
    effort = f"compiled in {told['seconds']:.0f} s, peak memory {size(told['peak_rss_bytes'])}"
    line = Text.assemble((told["bundle"], "bold"), f"  {sizes}\n* default recipe {told['default_recipe']}; {effort}")
    return Group(measured(told["recipes"], told["default_recipe"]), "", line)


def measured(rows: Iterable[Mapping[str, Any]], default: str) -> Table:
    """What compiling measured on the golden prompts, the default marked."""
    made = table("recipe", *((t, "right") for t in ("tokens/s", "speed-up", "acceptance")), "lossless", "golden")
    for row in rows:
        is_default = row["recipe"] == default
        made.add_row(
            f"{row['recipe']} *" if is_default else row["recipe"],
            f"{row['tokens_per_second']:.1f}",
            f"{row['speedup']:.2f}",
            f"{row['mean_acceptance_length']:.2f}",
            _yes(row["lossless"]),
            _verdicts(row["identical"], row["near-tie"], row["diverged"]),
            style="bold" if is_default else None,
        )
    return made


def tuned(plan: Mapping[str, Any]) -> RenderableType:
    """A tuner's plan: what was predicted of each recipe, and what the best of them did."""
    rows = table("recipe", ("drafts of", "right"), ("predicted", "right"), ("measured", "right"))
    tried = {t["recipe"]: t for t in plan["tried"]}
    for name, predicted in plan["predicted"].items():
        run = tried.get(name, {})
        lengths = [str(v) for k, v in run.get("parameters", {}).items() if k.endswith("_tokens")]
        star = " *" if name == plan["recipe"] else ""
        measured = f"{run['measured_speedup']:.2f}" if run else ""
        rows.add_row(name + star, " + ".join(lengths), f"{predicted:.2f}", measured)
    if plan["recipe"] == "plain":
        told = "nothing beats plain decoding by 5 % here: the plan is plain decoding"
    else:
        told = f"* the plan: {plan['recipe']}, {plan['measured_speedup']:.2f} times as fast as plain decoding"
    notes = [told, *(f"compile --tune would bake another tree for {name}" for name in plan["trees"])]
    if plan["single_threaded"]:
        notes.append(f"on one thread, where more take longer: {', '.join(plan['single_threaded'])}")
    return Group(rows, Text("\n".join(notes)), "", _curve(plan["curve"]))


def _curve(curve: Iterable[Mapping[str, Any]]) -> Table:
    """A step of the target by slots and context: milliseconds, and how many times (x) those of one slot."""
    steps = {(row["slots"], row["context"]): row for row in curve}
    contexts = sorted({context for _, context in steps})
    made = table("slots, measured", *((f"after {context}", "right") for context in contexts))
    for slots in sorted({slots for slots, _ in steps}):
        found = (steps[slots, context] for context in contexts)
        made.add_row(str(slots), *(f"{s['milliseconds']:.2f} ms  {s['ratio']:.2f} x" for s in found))
    return made


def proved(told: Mapping[str, Any]) -> RenderableType:
    """What `specc test` found: a row a recipe, then each divergence, then the whole."""
    rows = table("recipe", *((t, "right") for t in ("tokens/s", "acceptance")), "verdict")
    for row in told["recipes"]:
        verdict = _verdicts(row["identical"], row["near_ties"], row["diverged"], row["lossy"])
        rows.add_row(row["recipe"], f"{row['tokens_per_second']:.1f}", f"{row['mean_acceptance_length']:.2f}", verdict)
    parts: list[RenderableType] = [rows, ""]
    if told["divergences"]:
        parts += [_divergences(told["divergences"]), ""]
    count = f"{told['cases']} cases, {told['tokens']} tokens, {told['replays']} replays: "
    verdict = _verdicts(told["identical"], told["near_ties"], told["diverged"], told["lossy"])
    parts.append(Text(count).append_text(verdict))
    parts.append(Text(f"near-tie: the reference's own best two logits were closer than {told['tolerance']:g}", "dim"))
    if original := told["original"]:
        share = f"{original['agreement']:.1%} of {original['tokens']} next tokens are the original model's"
        parts.append(Text(f"weights are quantised, and the reference is the bundle itself: {share}"))
    if perplexity := told["perplexity"]:
        line = f"perplexity on {perplexity['text']}, {perplexity['tokens']} tokens: {perplexity['value']:.3f}"
        known = perplexity["original"]
        parts.append(Text(line if known is None else f"{line}; the original model's {known:.3f}"))
    if golden := told["golden"]:
        agrees = _verdicts(golden["identical"], golden["near_ties"], golden["diverged"])
        parts.append(Text(f"the bundle's golden file against {told['reference']}: ").append_text(agrees))
    return Group(*parts)


def _divergences(divergences: Iterable[Mapping[str, Any]]) -> Table:
    columns = ("case", "token", "expected", "got", "gap")
    made = table("divergence", *((t, "right") for t in columns), "verdict")
    for d in divergences:
        got = "the end" if d["got"] is None else str(d["got"])
        made.add_row(
            d["recipe"], str(d["case"]), str(d["at"]), str(d["expected"]), got, f"{d['gap']:.6f}", d["verdict"]
        )
    return made


def methods(all_methods: Iterable[Method]) -> Table:
    """The table of recipes: what each one is and where it was published, how it drafts and what it needs."""
    made = table("recipe", "method and paper", "topology, acceptance")
    for m in all_methods:
        what = Text(m.title).append(f"\n{m.paper}" if m.paper else "", "dim")
        drafter = [f"drafter {m.drafter}"] if m.drafter != m.name else []
        rule = f"{m.topology}, {m.acceptance}", "lossless" if m.lossless else "not lossless"
        made.add_row(m.name, what, "\n".join([*rule, *drafter, *(f"needs {n}" for n in m.needs)]))
        made.add_section()
    return made


def one_method(m: Method) -> RenderableType:
    """All of one method, its parameters in a table."""
    facts = table(("", "dim"), "", header=False)
    for name in ("title", "paper", "drafter", "acceptance", "topology"):
        facts.add_row(name, Text(getattr(m, name) or "-"))
    facts.add_row("lossless", _yes(m.lossless))
    facts.add_row("needs", ", ".join(m.needs) or "nothing more")
    if not m.parameters:
        return facts
    parameters = table("parameter", ("default", "right"), "")
    for name, p in m.parameters.items():
        parameters.add_row(name, "-" if p.default is None else str(p.default), Text(p.help))
    return Group(facts, "", parameters)


def method_json(m: Method) -> dict[str, Any]:
    return {
        "name": m.name,
        "title": m.title,
        "paper": m.paper,
        "drafter": m.drafter,
        "acceptance": m.acceptance,
        "topology": m.topology,
        "lossless": m.lossless,
        "needs": list(m.needs),
        "parameters": [{"name": n, "default": p.default, "help": p.help} for n, p in m.parameters.items()],
    }


def _verdicts(identical: int, near_ties: int, diverged: int, lossy: int = 0) -> Text:
    parts = [
        (identical, "identical", ""), (near_ties, "near-tie", "yellow"),
        (lossy, "different, as a lossy recipe may be", ""), (diverged, "diverged", "red"),
    ]  # fmt: skip
    some = [part for part in parts if part[0]] or parts[:1]
    return Text(", ").join([Text(f"{count} {text}", style) for count, text, style in some])


def _yes(value: bool) -> str:
    return "yes" if value else "no"
