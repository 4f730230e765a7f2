"""What pays on this machine: step costs and acceptance measured, plans predicted, the best of them run, one written.

A plan is a recipe and the parameters of its drafter that need no other engine: how many tokens a draft may have.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from specc import golden, host, prompts
from specc.costs import StepCost, step_costs
from specc.measure import BETTER
from specc.runtime.acceptance import Acceptance
from specc.runtime.bundle import Bundle, open_bundle, write_manifest
from specc.runtime.draft import Accepted, Draft, Verified
from specc.runtime.recipe import Recipe, load_acceptance
from specc.runtime.session import Session
from specc.runtime.stats import Stats
from specc.runtime.tree import Tree
from specc.trees import best_tree, speed

COUNTS = ("num_speculative_tokens", "prompt_lookup_num_tokens")  # parameters that say how long a draft may be
SHAPES = {"tree", "max_depth", "window_size"}  # parameters of drafts that are no chains
CONTEXTS = (64, 512, 1024)
REPEATS, ROUNDS, FINALISTS = 5, 3, 3
MAX_DEPTH = 8  # levels of a tree that is proposed
PROMPTS, TOKENS = 8, 64  # that calibrate, unless the user says otherwise


@dataclass(frozen=True)
class Step:
    """One step of a calibration run: slots below the pending token, those kept, calls of draft engines.

    ranks: for each slot of the kept path, the rank of the child that was right, None where none was, and how many
    children there were.
    """

    drafted: int
    accepted: int
    draft_calls: float
    ranks: tuple[tuple[int | None, int], ...]


@dataclass(frozen=True)
class Candidate:
    """A recipe with its parameters, and tokens a second as the cost model has it."""

    recipe: Recipe
    predicted: float


def tune(
    path: Path, file: Path | None = None, tokens: int = TOKENS, limit: int = PROMPTS,
    stage: Callable[[str, int, int], None] = lambda title, done, total: None,
) -> dict[str, Any]:  # fmt: skip
    """Measure, choose, and write the plan into the bundle's manifest; return it. Raises SpeccError.

    file: prompts, JSON lines; None takes the golden prompts. Until the end nothing is written.
    """
    bundle = open_bundle(path)
    session = Session(bundle)
    texts = (
        [p.text for p in prompts.read(file)]
        if file
        else [c.prompt for c in golden.read_cases(bundle.file(golden.FILE))]
    )
    room = bundle.manifest.model.context - tokens
    feeds = [session.text.encode(text)[-room:] for text in texts[:limit]]
    recipes = [r for r in bundle.manifest.recipes if r.lossless]
    total = len(recipes) + 3
    stage("measure the steps", 0, total)
    names = sorted({name for r in recipes for name in (*r.verify, *r.engines.values())})
    fits = [c for c in CONTEXTS if c <= bundle.manifest.model.context]
    costs = step_costs(session, names, fits or [1], REPEATS)
    table = _nearest(costs, median(len(f) for f in feeds) + tokens / 2)
    run = functools.partial(_calibrate, session, feeds, tokens)
    seen, found = {}, []
    for done, recipe in enumerate(recipes, 1):
        stage(f"calibrate {recipe.name}", done, total)
        steps, outside, costs_here = run(recipe)
        here = {**table, **{name: replace(table[name], milliseconds=ms) for name, ms in costs_here.items()}}
        seen[recipe.name] = steps
        found += [Candidate(c, predict(c, recipe, steps, here, outside)) for c in candidates(recipe)]
    plain = next(c for c in found if c.recipe.name == "plain")
    ranked = sorted((c for c in found if c is not plain), key=lambda c: -c.predicted)
    best = list({c.recipe.name: c for c in reversed(ranked)}.values())[::-1]  # of each recipe
    stage("run the best", total - 2, total)
    tried = _compare(bundle, plain, best[:FINALISTS], feeds, tokens)
    chosen = max(tried, key=lambda t: t["measured_speedup"], default=None)
    if chosen is None or chosen["measured_speedup"] < BETTER:
        chosen = {"recipe": "plain", "parameters": {}, "predicted_speedup": 1.0, "measured_speedup": 1.0}
    tuned = {c.recipe.name: c.recipe for c in best}
    plan = {
        **{k: chosen[k] for k in ("recipe", "parameters", "predicted_speedup", "measured_speedup")},
        "tried": tried,
        "predicted": {c.recipe.name: round(c.predicted / plain.predicted, 3) for c in best},
        "trees": _trees(recipes, seen, table),
        "acceptance": {name: acceptance(steps) for name, steps in seen.items() if any(s.drafted for s in steps)},
        "step_costs": [vars(c) for c in costs],
        "machine": host.describe(),
        "prompts": len(feeds), "tokens": tokens,
    }  # fmt: skip
    stage("write the plan", total - 1, total)
    manifest = replace(
        bundle.manifest, default_recipe=chosen["recipe"], extra={**bundle.manifest.extra, "plan": plan},
        recipes=tuple(tuned.get(r.name, r) for r in bundle.manifest.recipes),
    )  # fmt: skip
    write_manifest(path, manifest)
    return plan


def candidates(recipe: Recipe) -> list[Recipe]:
    """The recipe as it is, and with shorter drafts where one parameter says how long they are."""
    counts = [name for name in COUNTS if name in recipe.parameters]
    if len(counts) != 1 or SHAPES & recipe.parameters.keys():
        return [recipe]
    most = recipe.parameters[counts[0]]
    return [replace(recipe, parameters={**recipe.parameters, counts[0]: n}) for n in range(1, most + 1)]


def predict(recipe: Recipe, ran: Recipe, steps: Sequence[Step], costs: Mapping[str, StepCost], outside: float) -> float:
    """Tokens a second of `recipe`, from the steps of `ran`, the same with longer drafts.

    costs: a step of each engine. outside: milliseconds a step spent outside the engines.
    """
    cap = max([recipe.parameters[n] for n in COUNTS if n in recipe.parameters], default=0)
    same = recipe.parameters == ran.parameters
    verifiers = sorted((costs[name] for name in recipe.verify), key=lambda c: c.slots)
    draft = costs[recipe.engines["draft"]].milliseconds if "draft" in recipe.engines else 0.0
    tokens = milliseconds = 0.0
    for step in steps:
        drafted = step.drafted if same else min(step.drafted, cap)
        verify = next((c for c in verifiers if c.slots > drafted), verifiers[-1])
        calls = step.draft_calls if same else min(step.draft_calls, cap)
        tokens += 1 + (step.accepted if same else min(step.accepted, cap))
        milliseconds += calls * draft + verify.milliseconds + outside
    return 1000 * tokens / milliseconds


def acceptance(steps: Iterable[Step]) -> dict[str, list[float]]:
    """by_depth: how often a token at depth 1, 2, … was right, given that those above it were; by_rank: the same of a
    child of rank 0, 1, …, where there was one."""
    depth: dict[int, list[bool]] = {}
    rank: dict[int, list[bool]] = {}
    for step in steps:
        for level, (hit, children) in enumerate(step.ranks):
            if children:
                depth.setdefault(level, []).append(hit is not None)
            for r in range(children):
                rank.setdefault(r, []).append(hit == r)
    return {
        "by_depth": [round(sum(depth[d]) / len(depth[d]), 3) for d in sorted(depth)],
        "by_rank": [round(sum(rank[r]) / len(rank[r]), 3) for r in sorted(rank)],
    }


def _trees(
    recipes: Iterable[Recipe], seen: Mapping[str, Sequence[Step]], costs: Mapping[str, StepCost]
) -> dict[str, dict[str, Any]]:
    """For recipes with a baked tree, one that would be better by 5 % and more: its literal, and by how much."""
    found: dict[str, dict[str, Any]] = {}
    widths = {c.slots: c.milliseconds for r in recipes for c in (costs[name] for name in r.verify)}
    for recipe in recipes:
        if "tree" not in recipe.parameters or not (rates := acceptance(seen[recipe.name])["by_rank"]):
            continue
        level = costs[recipe.engines["draft"]].milliseconds if "draft" in recipe.engines else 0.0
        held = Tree(tuple(recipe.parameters["tree"]))
        better = best_tree(rates, widths, level, max(widths), MAX_DEPTH)
        gain = speed(better, rates, widths, level) / speed(held, rates, widths, level)
        if gain >= BETTER:
            found[recipe.name] = {"tree": [list(p) for p in better.paths], "predicted_gain": round(gain, 3)}
    return found


def _calibrate(
    session: Session, feeds: Sequence[list[int]], tokens: int, recipe: Recipe
) -> tuple[list[Step], float, dict[str, float]]:
    """The steps that a recipe took on all prompts, milliseconds a step outside the engines, and those of each engine
    that ran often enough to tell."""
    engines = [session.engines[name] for name in {*recipe.verify, *recipe.engines.values()}]
    session.generate(feeds[0], 8, recipe=recipe.name, ignore_eos=True, guard=False)  # to warm up
    before = {e.name: (e.calls, e.seconds) for e in engines}
    steps: list[Step] = []
    stats: list[Stats] = []
    for feed in feeds:
        first = len(steps)
        rule = _watched(load_acceptance(recipe.acceptance), steps)
        got = session.generate(feed, tokens, recipe=recipe.name, acceptance=rule, ignore_eos=True, guard=False).stats
        calls = got.draft_calls / max(1, sum(s.drafted > 0 for s in steps[first:]))
        steps[first:] = [replace(s, draft_calls=calls if s.drafted else 0.0) for s in steps[first:]]
        stats.append(got)
    outside = sum(s.seconds - s.engine_seconds for s in stats) / len(steps) * 1000
    spent = {e.name: (e.calls - before[e.name][0], e.seconds - before[e.name][1]) for e in engines}
    return steps, outside, {name: 1000 * seconds / calls for name, (calls, seconds) in spent.items() if calls > 20}


def _watched(rule: Acceptance, steps: list[Step]) -> Acceptance:
    """The same rule, which notes what came of each draft."""

    @functools.wraps(rule)
    def watched(draft: Draft, verified: Verified) -> Accepted:
        accepted = rule(draft, verified)
        path = [*accepted.slots, None]
        ranks = tuple(
            (None if below is None else draft.tree.rank[below], len(draft.tree.children[slot]))
            for slot, below in zip(accepted.slots, path[1:], strict=True)
        )
        steps.append(Step(draft.tree.slots - 1, len(accepted.slots) - 1, 0.0, ranks))
        return accepted

    return watched


def _nearest(costs: Iterable[StepCost], context: float) -> dict[str, StepCost]:
    """Each engine's cost at the context nearest to this one."""
    table: dict[str, StepCost] = {}
    for cost in costs:
        held = table.get(cost.engine)
        if held is None or abs(cost.context - context) < abs(held.context - context):
            table[cost.engine] = cost
    return table


def _compare(
    bundle: Bundle, plain: Candidate, best: Sequence[Candidate], feeds: Sequence[list[int]], tokens: int
) -> list[dict[str, Any]]:
    """Candidates run by turns with plain decoding: a row each, medians of the rounds' ratios."""
    recipes = tuple({r.name: r for r in bundle.manifest.recipes} | {c.recipe.name: c.recipe for c in best})
    chosen = {c.recipe.name: c.recipe for c in best}
    known = {r.name: r for r in bundle.manifest.recipes}
    manifest = replace(bundle.manifest, recipes=tuple(chosen.get(name, known[name]) for name in recipes))
    session = Session(replace(bundle, manifest=manifest))

    def seconds(name: str) -> float:
        return sum(session.generate(f, tokens, recipe=name, ignore_eos=True, guard=False).stats.seconds for f in feeds)

    ratios: dict[str, list[float]] = {c.recipe.name: [] for c in best}
    for _ in range(1 + ROUNDS):
        base = seconds("plain")
        for name, held in ratios.items():
            held.append(base / seconds(name))
    return [
        {
            "recipe": c.recipe.name,
            "parameters": dict(c.recipe.parameters),
            "predicted_speedup": round(c.predicted / plain.predicted, 3),
            "measured_speedup": round(median(ratios[c.recipe.name][1:]), 3),
        }
        for c in best
    ]


if __name__ == "__main__":
    tune(Path(sys.argv[1]), stage=lambda title, *_: print(title, flush=True))
