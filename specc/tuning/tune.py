"""Tune a bundle for this machine: measure costs, calibrate recipes, predict, run the best again, write the plan.

A plan chooses the recipe to decode by. For each recipe it chooses how long its drafts are, which of the bundle's
widths it verifies with, and how many threads its draft engine takes. None of these needs another engine.

The compiler runs this file in a process without torch: `python -m specc.tuning.tune BUNDLE`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from specc import machine
from specc.exactness import golden
from specc.exactness.golden import Case, Verdict
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.bundle_writer import check_writable, replace_manifest
from specc.runtime.engines import Engines
from specc.runtime.errors import SpeccWarning
from specc.runtime.prices import Prices
from specc.runtime.recipe import Recipe
from specc.runtime.sampling_defaults import PLAIN_GREEDY
from specc.runtime.session import open_session
from specc.tuning.acceptance_stats import Calibration, acceptance_rates, calibrate
from specc.tuning.job import PLAIN, Job, prepare, read_texts, with_single_threads
from specc.tuning.plan import CompiledRecipe, CurvePoint, Finalist, TunePlan
from specc.tuning.policy import DEFAULT_RECIPE, TUNING, TuningPolicy
from specc.tuning.speedup_model import Candidate, rank_candidates
from specc.tuning.step_costs import StepCost, step_costs
from specc.tuning.tree_proposals import propose_trees

Stage = Callable[[str, int, int], None]
LATER_STAGES = 5  # Stages beside one for each prompt: costs, shorter drafts, finalists, golden outputs, the plan.


def tune(
    path: Path,
    file: Path | None = None,
    tokens: int = TUNING.tokens,
    limit: int = TUNING.prompts,
    stage: Stage = lambda title, done, total: None,
    policy: TuningPolicy = TUNING,
    allow_native_code: bool = False,
) -> TunePlan:
    """Tune a bundle, and write the plan into its manifest. Nothing is written before the end.

    Args:
        path: the bundle's directory.
        file: a prompts file. None takes the bundle's golden prompts.
        tokens: how many tokens each answer has.
        limit: how many prompts are run at most.
        stage: called with the title of each stage, how many are done, and how many there are.
        policy: how much is measured, and what pays.
        allow_native_code: run engines that are native code.

    Returns:
        The plan that was written.

    Raises:
        SpeccError: the bundle or the prompts cannot be used, or the bundle cannot be written.
    """
    bundle = open_bundle(path, allow_native_code)
    check_writable(path)
    cases = golden.cases_of(bundle)
    golden.check_cases(cases, bundle.manifest.model)
    golden.check_gaps(cases, golden.implied_tolerance(bundle.manifest), golden.FILE)
    texts = read_texts(bundle, file)[:limit]
    total = len(texts) + LATER_STAGES
    stage("measure the steps", 0, total)
    job = prepare(bundle, texts, tokens, policy)
    costs, prices = measure_costs(job), measure_prices(job)
    calibrations = calibrate(
        job.session, job.prompts, tokens, job.drafting, lambda done: stage("calibrate", done, total)
    )
    job.session.engines.release(*job.engines)
    stage("calibrate shorter drafts", total - 4, total)
    candidates = predict(job, calibrations, costs)
    stage("run the best", total - 3, total)
    finalists = rerun_finalists(job, candidates)
    stage("replay the golden outputs", total - 2, total)
    winner = choose_finalist(job, candidates, finalists, cases)
    stage("write the plan", total - 1, total)
    plan = _plan(job, costs, prices, calibrations, candidates, finalists, winner)
    write(bundle, job, plan, candidates)
    return plan


def measure_costs(job: Job) -> list[StepCost]:
    """Time a step of every engine that the plan depends on."""
    return step_costs(job.session, job.engines, job.contexts, job.policy.cost_rounds)


def measure_prices(job: Job) -> Prices | None:
    """Time runs of the engine in which requests run together; None if the bundle has no lanes that run here."""
    engines = Engines(job.bundle)  # Of their own, so that the engine with lanes is unloaded afterwards.
    lanes = engines.lanes_for(engines.prefill(1))
    return lanes.measure(job.policy.cost_rounds) if lanes else None


def predict(job: Job, calibrations: Mapping[str, Calibration], costs: Sequence[StepCost]) -> list[Candidate]:
    """Predict the best parameters of each recipe.

    A shorter draft calls other engines, and more often. So recipes whose best draft is shorter than the compiled one
    are calibrated a second time with that length.

    Args:
        job: the bundle and the prompts.
        calibrations: each recipe as it was compiled, by name.
        costs: the measured costs of all engines.

    Returns:
        One candidate for each recipe, the fastest first.
    """
    nearest = _costs_near(job, costs)
    slack = job.policy.width_slack
    ranked = [rank_candidates(recipe, calibrations[recipe.name], nearest, slack) for recipe in job.drafting]
    shorter = [
        candidates[0].recipe
        for candidates, recipe in zip(ranked, job.drafting, strict=True)
        if candidates[0].recipe.parameters != recipe.parameters
    ]
    recalibrated: dict[str, Calibration] = {}
    if shorter:
        session = open_session(_with_recipes(job.bundle, shorter))
        recalibrated = calibrate(session, job.prompts, job.tokens, shorter)
    best = []
    for candidates in ranked:
        recipe, others = candidates[0].recipe, candidates[1:]
        first = candidates[0]
        if recipe.name in recalibrated:
            again = rank_candidates(recipe, recalibrated[recipe.name], nearest, slack)
            first = next(c for c in again if c.recipe.parameters == recipe.parameters)
        best.append(max((first, *others), key=lambda candidate: candidate.speedup))
    return sorted(best, key=lambda candidate: -candidate.speedup)


def rerun_finalists(job: Job, candidates: Sequence[Candidate]) -> list[Finalist]:
    """Run the fastest candidates in turns with plain decoding, prompt by prompt.

    Returns:
        The finalists in the order of the candidates, with the median of their speed-ups over the rounds.
    """
    best = candidates[: job.policy.finalists]
    session = open_session(_with_recipes(job.bundle, (candidate.recipe for candidate in best)))
    speedups: dict[str, list[float]] = {candidate.recipe.name: [] for candidate in best}
    for _ in range(1 + job.policy.finalist_rounds):
        session.shared.drafters.clear()  # A drafter would know the answers of the round before.
        seconds = dict.fromkeys((PLAIN, *speedups), 0.0)
        for prompt in job.prompts:
            for name in seconds:
                generation = session.generate(
                    prompt, job.tokens, recipe=name, **PLAIN_GREEDY, ignore_eos=True, guard=False
                )
                seconds[name] += generation.stats.seconds
        for name, values in speedups.items():
            values.append(seconds[PLAIN] / seconds[name])
    return [
        Finalist(
            recipe=candidate.recipe.name,
            parameters=dict(candidate.recipe.parameters),
            predicted_speedup=round(candidate.speedup, 3),
            measured_speedup=round(median(speedups[candidate.recipe.name][1:]), 3),  # The first round warms up.
        )
        for candidate in best
    ]


def choose_finalist(
    job: Job, candidates: Iterable[Candidate], finalists: Iterable[Finalist], cases: Sequence[Case]
) -> Finalist:
    """Choose the fastest finalist that passes the golden test, or plain decoding if none is fast enough.

    A finalist's draft length and widths are not those that the compile tested, so the golden cases are replayed with
    them. A finalist that diverges is named in a warning.
    """
    session = open_session(_with_recipes(job.bundle, (candidate.recipe for candidate in candidates)))
    for finalist in sorted(finalists, key=lambda finalist: -finalist.measured_speedup):
        if finalist.measured_speedup < job.policy.least_speedup:
            break
        results = golden.replay(session, cases, [finalist.recipe], golden.implied_tolerance(job.compiled))
        diverged = sum(result.verdict is Verdict.DIVERGED for result in results)
        if not diverged:
            return finalist
        warnings.warn(
            f"{finalist.recipe} fails the golden test in {diverged} of {len(results)} cases, so it is not the plan; "
            f"'specc test {job.bundle.path} --recipe {finalist.recipe}' shows where",
            SpeccWarning,
            stacklevel=2,
        )
    return Finalist(recipe=PLAIN, parameters={}, predicted_speedup=1.0, measured_speedup=1.0)


def write(bundle: Bundle, job: Job, plan: TunePlan, candidates: Iterable[Candidate]) -> None:
    """Write the plan, and each recipe with its best parameters, into the bundle's manifest.

    Raises:
        BundleError: the bundle was changed after it was opened, or cannot be written.
    """
    best = {candidate.recipe.name: candidate.recipe for candidate in candidates}
    recipes = tuple(best.get(recipe.name, recipe) for recipe in job.compiled.recipes)
    manifest = with_single_threads(job.compiled, job.single_threaded)
    enough = plan.prompts >= DEFAULT_RECIPE.least_prompts and plan.prompts * plan.tokens >= DEFAULT_RECIPE.least_tokens
    tuned = replace(manifest, recipes=recipes, default_recipe=plan.recipe, provisional=not enough)
    replace_manifest(bundle, plan.stored_in(tuned))


def _plan(
    job: Job,
    costs: Sequence[StepCost],
    prices: Prices | None,
    calibrations: Mapping[str, Calibration],
    candidates: Sequence[Candidate],
    finalists: Sequence[Finalist],
    winner: Finalist,
) -> TunePlan:
    """Return the plan: the chosen finalist, and what the choice rests on."""
    return TunePlan(
        recipe=winner.recipe,
        parameters=winner.parameters,
        predicted_speedup=winner.predicted_speedup,
        measured_speedup=winner.measured_speedup,
        tried=tuple(finalists),
        predicted={candidate.recipe.name: round(candidate.speedup, 3) for candidate in candidates},
        verify={candidate.recipe.name: candidate.recipe.verify for candidate in candidates},
        single_threaded=tuple(job.single_threaded),
        trees=propose_trees(job, calibrations, _costs_near(job, costs)),
        acceptance={
            name: acceptance_rates(calibration.steps)
            for name, calibration in calibrations.items()
            if any(step.drafted for step in calibration.steps)
        },
        curve=_curve(costs, job.chains),
        step_costs=tuple(costs),
        compiled={
            recipe.name: CompiledRecipe(verify=tuple(recipe.verify), parameters=dict(recipe.parameters))
            for recipe in job.compiled.recipes
        },
        machine=machine.describe(),
        prompts=len(job.prompts),
        tokens=job.tokens,
        prices=prices,
    )


def _with_recipes(bundle: Bundle, recipes: Iterable[Recipe]) -> Bundle:
    """Return the bundle with these recipes in place of those that have the same names."""
    by_name = {recipe.name: recipe for recipe in recipes}
    replaced = tuple(by_name.get(recipe.name, recipe) for recipe in bundle.manifest.recipes)
    return replace(bundle, manifest=replace(bundle.manifest, recipes=replaced))


def _costs_near(job: Job, costs: Iterable[StepCost]) -> dict[str, StepCost]:
    """Choose each engine's cost at the measured context that is nearest to the middle of a typical answer."""
    middle = median(len(prompt) for prompt in job.prompts) + job.tokens / 2
    nearest: dict[str, StepCost] = {}
    for cost in costs:
        best = nearest.get(cost.engine)
        if best is None or abs(cost.context - middle) < abs(best.context - middle):
            nearest[cost.engine] = cost
    return nearest


def _curve(costs: Iterable[StepCost], engines: Mapping[int, str]) -> tuple[CurvePoint, ...]:
    """Extract the cost of the target's chains by slots and context."""
    times = {(cost.slots, cost.context): cost.milliseconds for cost in costs if engines.get(cost.slots) == cost.engine}
    return tuple(
        CurvePoint(slots=slots, context=context, milliseconds=ms, ratio=round(ms / times[1, context], 3))
        for (slots, context), ms in sorted(times.items())
    )


if __name__ == "__main__":
    tune(Path(sys.argv[1]), stage=lambda title, *_: print(title, flush=True), allow_native_code=True)
