"""Choose the recipe that a bundle decodes by if the user names none: run plain decoding and every recipe here.

The compiler runs this file in a process without torch: `python -m specc.tuning.default_recipe BUNDLE [amplified]`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from specc.exactness import golden, width_invariance
from specc.exactness.golden import Verdict
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.bundle_writer import write_manifest
from specc.runtime.device import CPU
from specc.runtime.engines import choose
from specc.runtime.errors import BackendError
from specc.runtime.session import open_session
from specc.runtime.width_invariance import exactness, is_lossless
from specc.tuning.policy import DEFAULT_RECIPE, DefaultRecipePolicy
from specc.tuning.trials import PLAIN, RecipeTrials, Trials, ratio

Advance = Callable[[int, int, str], None]  # The steps that are done, their number, and what the next one runs.
# Steps that take about equally long. Anew: benchmarks/bench_time_left.py.
STEPS_OF_WIDTHS, STEPS_OF_A_TRY_OUT, STEPS_OF_A_PROMPT = 12, 2, 3
AMPLIFIED = "amplified"  # This word on the command line of this module means `choose_default(amplified=True)`.
VERDICTS = (Verdict.IDENTICAL, Verdict.NEAR_TIE, Verdict.DIVERGED, Verdict.LOSSY)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A default recipe, and what it rests on.

    Attributes:
        recipe: the fastest lossless recipe that passes the golden test, or plain decoding if none is fast enough.
        provisional: whether it rests on fewer prompts or tokens than the policy asks for.
        rows: the rows of the manifest's `measured`, plain decoding first.
    """

    recipe: str
    provisional: bool
    rows: tuple[dict[str, Any], ...]


def choose_default(
    path: Path,
    advance: Advance = lambda done, steps, recipe: None,
    policy: DefaultRecipePolicy = DEFAULT_RECIPE,
    amplified: bool = False,
) -> None:
    """Measure the target and the recipes, and write the results and the choice into the manifest.

    A bundle none of whose engines run on the CPU stays as it is.

    Args:
        path: the bundle's directory.
        advance: called before each recipe and each prompt.
        policy: how long to measure, and how fast the default must be.
        amplified: whether the target's graphs amplify last bits that depend on the width. Then no text can show that
            its tokens do not.
    """
    bundle = open_bundle(path, allow_native_code=True)  # It was compiled here.
    try:
        choose(bundle, CPU)
    except BackendError:
        return
    cases = golden.cases_of(bundle)
    steps = STEPS_OF_WIDTHS + _steps(bundle, len(cases))
    advance(0, steps, "every width beside decode")
    invariance = width_invariance.measure(open_session(bundle), cases, amplified=amplified)
    bundle = replace(bundle, manifest=replace(bundle.manifest, width_invariance=invariance))
    choice = measure(bundle, lambda done, _, recipe: advance(STEPS_OF_WIDTHS + done, steps, recipe), policy)
    write_manifest(
        path,
        replace(
            bundle.manifest,
            default_recipe=choice.recipe,
            provisional=choice.provisional,
            measured=choice.rows,
        ),
    )


def measure(
    bundle: Bundle,
    advance: Advance = lambda done, steps, recipe: None,
    policy: DefaultRecipePolicy = DEFAULT_RECIPE,
) -> Choice:
    """Try every recipe out, run the contenders in turns with plain decoding, and choose.

    Args:
        bundle: a bundle with engines that run on the CPU.
        advance: called before each recipe and each prompt.
        policy: how long to measure.
    """
    trials = Trials(bundle, policy)
    trials.warm_up()
    recipes = [recipe.name for recipe in bundle.manifest.recipes if recipe.name != PLAIN]
    steps = _steps(bundle, len(trials.cases))
    for done, recipe in enumerate(recipes):
        advance(STEPS_OF_A_TRY_OUT * done, steps, recipe)
        trials.try_out(recipe)
    contenders = trials.contenders()
    number, before = 0, STEPS_OF_A_TRY_OUT * len(recipes)
    while trials.run_round(
        contenders,
        number,
        lambda case: advance(before + STEPS_OF_A_PROMPT * case, steps, "the fastest in turns"),
    ):
        number += 1
    rows = [_row(trials, PLAIN)]
    rows += [_row(trials, recipe) for recipe in recipes]
    return Choice(
        recipe=_fastest(trials, contenders, policy),
        provisional=bool(contenders) and not _rests_on_enough(trials.rounds[PLAIN], policy),
        rows=tuple(rows),
    )


def _steps(bundle: Bundle, cases: int) -> int:
    """Return the number of steps of `measure`: the try-outs of all recipes, and the prompts of a round."""
    return STEPS_OF_A_TRY_OUT * (len(bundle.manifest.recipes) - 1) + STEPS_OF_A_PROMPT * cases


def _fastest(trials: Trials, contenders: list[str], policy: DefaultRecipePolicy) -> str:
    """Return the fastest lossless contender that passes the golden test, or plain decoding."""
    speedups = {name: ratio(trials.rounds[name].speed, trials.rounds[PLAIN].speed) for name in contenders}
    for name in sorted(contenders, key=lambda name: -speedups[name]):
        fast_enough = speedups[name] >= policy.least_speedup
        if (
            fast_enough
            and is_lossless(trials.bundle.manifest, trials.bundle.recipe(name))
            and trials.passes_golden_test(name)
        ):
            return name
    return PLAIN


def _rests_on_enough(plain: RecipeTrials, policy: DefaultRecipePolicy) -> bool:
    """Tell whether plain decoding, and so each contender, ran on enough prompts and tokens."""
    return len(plain.by_case) >= policy.least_prompts and plain.tokens >= policy.least_tokens


def _row(trials: Trials, name: str) -> dict[str, Any]:
    """Summarise a recipe. `speedup` is the ratio of its tokens a second to plain decoding's in the first row.

    A recipe that ran in the try-out alone was compared with plain decoding on the same prompts. Its tokens a second are
    this ratio times plain decoding's in the rounds, since two prompts have another speed than all have.
    """
    manifest, recipe = trials.bundle.manifest, trials.bundle.recipe(name)
    plain = trials.rounds[PLAIN].speed
    if name in trials.rounds:
        results, speed = trials.rounds[name], trials.rounds[name].speed
        speedup = ratio(speed, plain)
    else:
        results, speedup = trials.tried[name], trials.tried_speedup(name)
        speed = speedup * plain
    exact = trials.exact_speedup(name)
    return {
        "recipe": name,
        "lossless": is_lossless(manifest, recipe),
        "exactness": exactness(manifest, recipe),
        "tokens_per_second": round(speed, 2),
        "speedup": round(speedup, 3),
        **({} if exact is None else {"exact_speedup": round(exact, 3)}),
        "mean_acceptance_length": round(results.mean_acceptance_length, 3),
        "cases": len(results.by_case),
        "of_cases": len(trials.cases),
        "tokens": results.tokens,
        **{str(verdict): results.count(verdict) for verdict in VERDICTS},
    }


if __name__ == "__main__":
    choose_default(
        Path(sys.argv[1]),
        lambda done, steps, recipe: print(done, steps, recipe, flush=True),
        amplified=AMPLIFIED in sys.argv[2:],
    )
