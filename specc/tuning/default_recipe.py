"""Choose the recipe that a bundle decodes by if the user names none: run plain decoding and every recipe here.

The compiler runs this file in a process without torch: `python -m specc.tuning.default_recipe BUNDLE`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from specc.exactness import golden, width_invariance
from specc.exactness.golden import Case, Replayed, Verdict
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.bundle_writer import write_manifest
from specc.runtime.device import CPU
from specc.runtime.engines import choose
from specc.runtime.errors import BackendError
from specc.runtime.session import Session
from specc.runtime.width_invariance import exactness, is_lossless
from specc.tuning.policy import DEFAULT_RECIPE, DefaultRecipePolicy

PLAIN = "plain"
VERDICTS = (Verdict.IDENTICAL, Verdict.NEAR_TIE, Verdict.DIVERGED, Verdict.LOSSY)


def choose_default(
    path: Path,
    advance: Callable[[str], None] = lambda recipe: None,
    policy: DefaultRecipePolicy = DEFAULT_RECIPE,
) -> None:
    """Measure the target and the recipes, and write the results and the fastest lossless recipe into the manifest.

    A bundle none of whose engines run on the CPU stays as it is.

    Args:
        path: the bundle's directory.
        advance: called with the name of each recipe before it runs.
        policy: how long to measure, and how fast the default must be.
    """
    bundle = open_bundle(path, allow_native_code=True)  # It was compiled here.
    try:
        choose(bundle, CPU)
    except BackendError:
        return
    invariance = width_invariance.measure(Session(bundle), golden.read_cases(bundle.file(golden.FILE)))
    bundle = replace(bundle, manifest=replace(bundle.manifest, width_invariance=invariance))
    rows = measure(bundle, advance, policy)
    eligible = [
        row for row in rows if row["lossless"] and not row["diverged"] and row["speedup"] >= policy.least_speedup
    ]
    best = max(eligible, key=lambda row: row["speedup"], default=rows[0])
    write_manifest(path, replace(bundle.manifest, default_recipe=best["recipe"], measured=tuple(rows)))


def measure(
    bundle: Bundle,
    advance: Callable[[str], None] = lambda recipe: None,
    policy: DefaultRecipePolicy = DEFAULT_RECIPE,
) -> list[dict[str, Any]]:
    """Run plain decoding and every recipe on the golden cases.

    Args:
        bundle: a bundle with engines that run on the CPU.
        advance: called with the name of each recipe before it runs.
        policy: how long to measure.

    Returns:
        The rows of the manifest's `measured`, plain decoding first: the name, the speed in tokens a second and as a
        multiple of plain decoding's, the mean acceptance length, and how many cases had which verdict.
    """
    trials = _Trials(bundle, policy)
    trials.run_plain()
    for recipe in bundle.manifest.recipes:
        if recipe.name != PLAIN:
            advance(recipe.name)
            trials.run_once(recipe.name)
    trials.rerun_fastest()
    return trials.rows()


def speed(results: Sequence[Replayed]) -> float:
    """Compute the tokens a second of decoding, over some cases. Prefill gives the first token of each."""
    seconds = sum(result.seconds for result in results)
    return sum(result.tokens - 1 for result in results) / seconds if seconds else 0.0


def _ratio(recipe: float, plain: float) -> float:
    """Compare two speeds. Cases of one token have none, since prefill gives that token, and compare as equal."""
    return recipe / plain if plain else 1.0


class _Trials:
    """The runs of a bundle's recipes on its golden cases.

    Attributes:
        first: the results of each recipe's first run.
        speeds: tokens a second of every run, by recipe.
        ratios: the same as multiples of plain decoding's speed on the same cases.
    """

    def __init__(self, bundle: Bundle, policy: DefaultRecipePolicy) -> None:
        self.bundle, self.policy = bundle, policy
        self.session = Session(bundle)
        self.cases = golden.read_cases(bundle.file(golden.FILE))
        self.first: dict[str, list[Replayed]] = {}
        self.speeds: dict[str, list[float]] = {}
        self.ratios: dict[str, list[float]] = {}

    @property
    def plain(self) -> list[Replayed]:
        """The results of plain decoding's first run."""
        return self.first[PLAIN]

    @property
    def plain_seconds(self) -> float:
        """The time of plain decoding's first run."""
        return sum(result.seconds for result in self.plain)

    def run_plain(self) -> None:
        """Run plain decoding on cases until it has taken its time. The recipes then run on the same cases."""
        self._warm_up(PLAIN)
        results = self.first[PLAIN] = []
        for case in self.cases:
            if len(results) >= self.policy.least_cases and self.plain_seconds >= self.policy.plain_seconds:
                break
            results += self._replay(PLAIN, [case])
        self.cases = self.cases[: len(results)]
        self._record(PLAIN, results)

    def run_once(self, recipe: str) -> None:
        """Run a recipe on the first case, and on the others unless it is hopelessly slow on that one."""
        self._warm_up(recipe)
        results = self.first[recipe] = self._replay(recipe, self.cases[:1])
        if speed(results) >= self.policy.give_up_below * speed(self.plain[:1]):
            results += self._replay(recipe, self.cases[1:])
        self._record(recipe, results)
        self._release(recipe)

    def rerun_fastest(self) -> None:
        """Run the fastest recipes again, in turns with plain decoding."""
        policy = self.policy
        hopeful = [name for name in self.first if name != PLAIN and self.ratios[name][0] >= policy.rerun_from]
        hopeful.sort(key=lambda name: -self.ratios[name][0])
        reruns = policy.reruns if self.plain_seconds < policy.plain_seconds / 2 else 1
        for recipe in hopeful[: policy.finalists]:
            for _ in range(reruns):
                plain = speed(self._replay(PLAIN, self.cases))
                self.speeds[PLAIN].append(plain)
                self.speeds[recipe].append(speed(self._replay(recipe, self.cases)))
                self.ratios[recipe].append(_ratio(self.speeds[recipe][-1], plain))
            self._release(recipe)

    def rows(self) -> list[dict[str, Any]]:
        """Summarise all runs, one row for each recipe."""
        return [
            {
                "recipe": name,
                "lossless": is_lossless(self.bundle.manifest, self.bundle.recipe(name)),
                "exactness": exactness(self.bundle.manifest, self.bundle.recipe(name)),
                "tokens_per_second": round(median(self.speeds[name]), 2),
                "speedup": round(median(self.ratios[name]), 3),
                "mean_acceptance_length": round(sum(r.mean_acceptance_length for r in results) / len(results), 3),
                **{str(v): sum(r.verdict is v for r in results) for v in VERDICTS},
            }
            for name, results in self.first.items()
        ]

    def _warm_up(self, recipe: str) -> None:
        prompt, count = self.cases[0].prompt_ids, self.policy.warm_up_tokens
        self.session.generate(prompt, count, recipe=recipe, temperature=0, guard=False)

    def _replay(self, recipe: str, cases: Sequence[Case]) -> list[Replayed]:
        return golden.replay(self.session, list(cases), [recipe], self.bundle.manifest.near_tie_tolerance)

    def _record(self, recipe: str, results: Sequence[Replayed]) -> None:
        """Add the speed of a first run, and its ratio to plain decoding on as many cases."""
        self.speeds[recipe] = [speed(results)]
        self.ratios[recipe] = [_ratio(speed(results), speed(self.plain[: len(results)]))]

    def _release(self, recipe: str) -> None:
        """Unload the engines that only this recipe uses, so that one recipe's are in memory at a time."""
        self.session.release(self.bundle.recipe(recipe), self.bundle.recipe(PLAIN))


if __name__ == "__main__":
    choose_default(Path(sys.argv[1]), lambda recipe: print(f"measure {recipe}", flush=True))
