"""Which recipe a bundle decodes by unless told: plain decoding and every recipe on its golden prompts, here."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from specc.exactness import golden
from specc.exactness.golden import Case, Replayed
from specc.runtime.bundle import Bundle, open_bundle, write_manifest
from specc.runtime.device import CPU
from specc.runtime.engines import choose
from specc.runtime.errors import BackendError
from specc.runtime.session import Session

BETTER = 1.05  # a recipe must be so much faster than plain decoding to become the default
HOPELESS, HOPEFUL = 0.6, 0.9  # of plain's speed: what is not run on after one case; what is run again
FINALISTS, AGAIN = 2, 2  # so many of the fastest so often, by turns with plain decoding; once where that takes long
BUDGET, FEWEST = 1.0, 2  # seconds of plain decoding in a round: where all cases take longer, the first stand for them
WARM_UP = 8  # tokens


def choose_default(path: Path, advance: Callable[[str], None] = lambda recipe: None) -> None:
    """Measure, and write what came out and the fastest lossless recipe into the manifest.

    Nothing is measured where no engine runs on the CPU.
    """
    bundle = open_bundle(path)
    try:
        choose(bundle, CPU)
    except BackendError:
        return
    rows = measure(bundle, advance)
    sound = [r for r in rows if r["lossless"] and not r["diverged"] and r["speedup"] >= BETTER]
    best = max(sound, key=lambda r: r["speedup"], default=rows[0])
    write_manifest(path, replace(bundle.manifest, default_recipe=best["recipe"], measured=tuple(rows)))


def measure(bundle: Bundle, advance: Callable[[str], None] = lambda recipe: None) -> list[dict[str, Any]]:
    """A row a recipe, plain first: speed, acceptance, and how many of the golden cases it ran came out identical."""
    session, cases = Session(bundle), golden.read_cases(bundle.file(golden.FILE))
    tolerance = bundle.manifest.near_tie_tolerance

    def run(recipe: str, some: Sequence[Case]) -> list[Replayed]:
        return golden.replay(session, list(some), [recipe], tolerance)

    def warm_up(recipe: str) -> None:
        session.generate(cases[0].prompt_ids, WARM_UP, recipe=recipe, guard=False)

    warm_up("plain")
    plain: list[Replayed] = []
    while len(plain) < len(cases) and (len(plain) < FEWEST or sum(r.seconds for r in plain) < BUDGET):
        plain += run("plain", [cases[len(plain)]])
    some = cases[: len(plain)]
    first = {"plain": plain}
    for recipe in [r.name for r in bundle.manifest.recipes if r.name != "plain"]:
        advance(recipe)
        warm_up(recipe)
        first[recipe] = run(recipe, some[:1])
        if speed(first[recipe]) >= HOPELESS * speed(plain[:1]):
            first[recipe] += run(recipe, some[1:])
        session.release(bundle.recipe(recipe), bundle.recipe("plain"))
    speeds = {name: [speed(ran)] for name, ran in first.items()}
    ratios = {name: [speed(ran) / speed(plain[: len(ran)])] for name, ran in first.items()}
    hopeful = sorted((n for n in first if n != "plain" and ratios[n][0] >= HOPEFUL), key=lambda n: -ratios[n][0])
    for recipe in hopeful[:FINALISTS]:
        for _ in range(AGAIN if sum(r.seconds for r in plain) < BUDGET / 2 else 1):
            speeds["plain"].append(speed(run("plain", some)))
            speeds[recipe].append(speed(run(recipe, some)))
            ratios[recipe].append(speeds[recipe][-1] / speeds["plain"][-1])
        session.release(bundle.recipe(recipe), bundle.recipe("plain"))
    return [
        {
            "recipe": name,
            "lossless": bundle.recipe(name).lossless,
            "tokens_per_second": round(median(speeds[name]), 2),
            "speedup": round(median(ratios[name]), 3),
            "mean_acceptance_length": round(sum(r.mean_acceptance_length for r in ran) / len(ran), 3),
            **{v: sum(r.verdict == v for r in ran) for v in ("identical", "near-tie", "diverged")},
        }
        for name, ran in first.items()
    ]


def speed(results: Sequence[Replayed]) -> float:
    """Tokens a second of decoding, over some cases."""
    return sum(r.tokens - 1 for r in results) / sum(r.seconds for r in results)


if __name__ == "__main__":
    choose_default(Path(sys.argv[1]), lambda recipe: print(f"measure {recipe}", flush=True))
