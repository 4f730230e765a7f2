"""What pays on this machine: step costs and acceptance measured, plans predicted, the best of them run, one written.

A plan is the recipe to decode by, and for each recipe how long its drafts are, which of the bundle's widths it verifies
with, and how many threads its draft engine takes: whatever needs no other engine.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from specc import machine, prompts
from specc.exactness import golden
from specc.runtime.bundle import Bundle, open_bundle, write_manifest
from specc.runtime.manifest import Manifest
from specc.runtime.recipe import Recipe
from specc.runtime.session import Session
from specc.runtime.tree import Tree
from specc.tuning.acceptance_stats import Calibration, acceptance, calibrate
from specc.tuning.best_tree import Costs, best_tree, speed
from specc.tuning.chain_widths import chains, widened
from specc.tuning.default_recipe import BETTER
from specc.tuning.speedup_model import Candidate, predicted
from specc.tuning.step_costs import StepCost, faster_alone, step_costs

CONTEXTS = (64, 512, 1024)
REPEATS, ROUNDS, FINALISTS = 5, 5, 3
MAX_DEPTH = 8  # levels of a tree that is proposed
PROMPTS, TOKENS = 8, 64  # that calibrate, unless the user says otherwise


def tune(
    path: Path, file: Path | None = None, tokens: int = TOKENS, limit: int = PROMPTS,
    stage: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """Measure, choose, and write the plan into the bundle's manifest; return it. Raises SpeccError.

    file: prompts, JSON lines; None takes the golden prompts. Until the end nothing is written.
    """
    bundle = open_bundle(path)
    texts = (
        [p.text for p in prompts.read(file)]
        if file
        else [c.prompt for c in golden.read_cases(bundle.file(golden.FILE))]
    )
    compiled = _compiled(bundle.manifest)
    by_width, total = chains(compiled), min(limit, len(texts)) + 4
    stage("measure the steps", 0, total)
    contexts = [c for c in CONTEXTS if c <= compiled.model.context] or [1]
    drafts = sorted({name for r in compiled.recipes for name in r.engines.values()})
    alone = faster_alone(replace(bundle, manifest=compiled), drafts, contexts[0])
    bundle = replace(bundle, manifest=_threaded(widened(compiled, by_width), alone))
    recipes = [r for r in bundle.manifest.recipes if r.lossless]
    session = Session(bundle)
    room = compiled.model.context - tokens
    feeds = [session.text.encode(text)[-room:] for text in texts[:limit]]
    names = sorted({*by_width.values(), *(name for r in recipes for name in (*r.verify, *r.engines.values()))})
    costs = step_costs(session, names, contexts, REPEATS)
    table = _nearest(costs, median(len(f) for f in feeds) + tokens / 2)
    drafting = [r for r in recipes if r.name != "plain"]
    seen = calibrate(session, feeds, tokens, drafting, lambda done: stage("calibrate", done, total))
    ranked = [predicted(recipe, seen[recipe.name], table) for recipe in drafting]
    session.engines.release(*names)
    shorter = [c[0].recipe for c, r in zip(ranked, drafting, strict=True) if c[0].recipe.parameters != r.parameters]
    stage("calibrate shorter drafts", total - 3, total)
    again = calibrate(Session(_with(bundle, shorter)), feeds, tokens, shorter) if shorter else {}
    found = _confirmed(ranked, again, table)
    best = {c.recipe.name: c for c in found}
    stage("run the best", total - 2, total)
    tried = _compare(bundle, found[:FINALISTS], feeds, tokens)
    chosen = max(tried, key=lambda t: t["measured_speedup"], default=None)
    if chosen is None or chosen["measured_speedup"] < BETTER:
        chosen = {"recipe": "plain", "parameters": {}, "predicted_speedup": 1.0, "measured_speedup": 1.0}
    plan = {
        **{k: chosen[k] for k in ("recipe", "parameters", "predicted_speedup", "measured_speedup")},
        "tried": tried,
        "predicted": {name: round(c.speedup, 3) for name, c in best.items()},
        "verify": {name: list(c.recipe.verify) for name, c in best.items()},
        "single_threaded": alone,
        "trees": {r.name: tree for r in recipes if (tree := _better_tree(r, seen.get(r.name), by_width, table))},
        "acceptance": {name: acceptance(got.steps) for name, got in seen.items() if any(s.drafted for s in got.steps)},
        "curve": _curve(costs, by_width),
        "step_costs": [vars(c) for c in costs],
        "compiled": {r.name: {"verify": list(r.verify), "parameters": dict(r.parameters)} for r in compiled.recipes},
        "machine": machine.describe(),
        "prompts": len(feeds), "tokens": tokens,
    }  # fmt: skip
    stage("write the plan", total - 1, total)
    tuned = tuple(best[r.name].recipe if r.name in best else r for r in compiled.recipes)
    manifest = replace(_threaded(compiled, alone), recipes=tuned, default_recipe=chosen["recipe"])
    write_manifest(path, replace(manifest, extra={**manifest.extra, "plan": plan}))
    return plan


def _confirmed(
    ranked: Iterable[Sequence[Candidate]], again: Mapping[str, Calibration], table: Mapping[str, StepCost]
) -> list[Candidate]:
    """The best of each recipe, best first.

    again: what those came to that are not the recipe as compiled: shorter drafts call other engines, more often.
    """
    found = []
    for best, *others in ranked:
        if best.recipe.name in again:
            own = predicted(best.recipe, again[best.recipe.name], table)
            best = next(c for c in own if c.recipe.parameters == best.recipe.parameters)
        found.append(max((best, *others), key=lambda c: c.speedup))
    return sorted(found, key=lambda c: -c.speedup)


def _with(bundle: Bundle, recipes: Iterable[Recipe]) -> Bundle:
    """The bundle with these recipes in the place of those of their names."""
    chosen = {r.name: r for r in recipes}
    held = tuple(chosen.get(r.name, r) for r in bundle.manifest.recipes)
    return replace(bundle, manifest=replace(bundle.manifest, recipes=held))


def _compiled(manifest: Manifest) -> Manifest:
    """As it was before its first plan."""
    held: Mapping[str, Any] = manifest.extra.get("plan", {}).get("compiled", {})
    recipes = tuple(
        replace(r, verify=tuple(held[r.name]["verify"]), parameters=held[r.name]["parameters"]) if r.name in held else r
        for r in manifest.recipes
    )
    return replace(manifest, recipes=recipes, engines=tuple(replace(e, threads=0) for e in manifest.engines))


def _threaded(manifest: Manifest, alone: Iterable[str]) -> Manifest:
    return replace(manifest, engines=tuple(replace(e, threads=int(e.name in alone)) for e in manifest.engines))


def _better_tree(
    recipe: Recipe, got: Calibration | None, by_width: Mapping[int, str], table: Mapping[str, StepCost]
) -> dict[str, Any] | None:
    """For a recipe with a baked tree, one that would be better by 5 % and more: its literal, and by how much."""
    if got is None or "tree" not in recipe.parameters or not (rates := acceptance(got.steps)["by_rank"]):
        return None
    draft = table[recipe.engines["draft"]] if "draft" in recipe.engines else None
    widths = {table[name].slots: table[name].milliseconds for name in (*recipe.verify, *by_width.values())}
    costs = Costs(widths, draft.milliseconds, draft.slots) if draft else Costs(widths)
    held = Tree(tuple(recipe.parameters["tree"]))
    better = best_tree(rates, costs, MAX_DEPTH)
    gain = speed(better, rates, costs) / speed(held, rates, costs)
    return {"tree": [list(p) for p in better.paths], "predicted_gain": round(gain, 3)} if gain >= BETTER else None


def _curve(costs: Iterable[StepCost], by_width: Mapping[int, str]) -> list[dict[str, Any]]:
    """A step by its slots, each as measured: milliseconds, and how many times those of one slot, t(M) / t(1)."""
    known = {(c.slots, c.context): c.milliseconds for c in costs if by_width.get(c.slots) == c.engine}
    return [
        {"slots": slots, "context": context, "milliseconds": ms, "ratio": round(ms / known[1, context], 3)}
        for (slots, context), ms in sorted(known.items())
    ]


def _nearest(costs: Iterable[StepCost], context: float) -> dict[str, StepCost]:
    """Each engine's cost at the context nearest to this one."""
    table: dict[str, StepCost] = {}
    for cost in costs:
        held = table.get(cost.engine)
        if held is None or abs(cost.context - context) < abs(held.context - context):
            table[cost.engine] = cost
    return table


def _compare(
    bundle: Bundle, best: Sequence[Candidate], feeds: Sequence[list[int]], tokens: int
) -> list[dict[str, Any]]:
    """Candidates run by turns with plain decoding, prompt by prompt: a row each, medians of the rounds' ratios."""
    session = Session(_with(bundle, (c.recipe for c in best)))
    ratios: dict[str, list[float]] = {c.recipe.name: [] for c in best}
    for _ in range(1 + ROUNDS):
        session.drafters.clear()  # what they learned of these prompts
        seconds = dict.fromkeys(("plain", *ratios), 0.0)
        for feed in feeds:
            for name in seconds:
                stats = session.generate(feed, tokens, recipe=name, ignore_eos=True, guard=False).stats
                seconds[name] += stats.seconds
        for name, held in ratios.items():
            held.append(seconds["plain"] / seconds[name])
    return [
        {
            "recipe": c.recipe.name,
            "parameters": dict(c.recipe.parameters),
            "predicted_speedup": round(c.speedup, 3),
            "measured_speedup": round(median(ratios[c.recipe.name][1:]), 3),
        }
        for c in best
    ]


if __name__ == "__main__":
    tune(Path(sys.argv[1]), stage=lambda title, *_: print(title, flush=True))
