"""What `specc test` reports: the golden cases of a bundle, decoded again by its recipes. Torch for a reference only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from specc.exactness import golden, perplexity
from specc.exactness.golden import Case, Replayed, Verdict
from specc.exactness.perplexity import Sample
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.device import CPU, Device
from specc.runtime.manifest_checks import check_tolerance
from specc.runtime.session import Session
from specc.runtime.width_invariance import is_lossless

GOLDEN = "the bundle's golden file"  # stands for a recipe where that file is compared with a reference
COUNTED = {  # by the names of the counts in JSON
    "identical": Verdict.IDENTICAL,
    "near_ties": Verdict.NEAR_TIE,
    "diverged": Verdict.DIVERGED,
    "lossy": Verdict.LOSSY,
}
Stage = Callable[[str, int, int], None]  # title, steps done, steps in all


@dataclass(frozen=True)
class MeasuredPerplexity:
    """A bundle's perplexity on a text, and the original model's where it is known."""

    text: str
    tokens: int
    value: float
    original: float | None


@dataclass(frozen=True, kw_only=True)
class Proof:
    """A test of a bundle: each golden case, decoded by each recipe, and how the tokens compare.

    Attributes:
        bundle: the bundle.
        cases: the cases that tokens were compared with: the bundle's, or the reference's if there is one.
        replayed: a result for each case and recipe.
        tolerance: the gap of logits below which a difference is a near-tie.
        reference: the model that decoded the prompts anew.
        golden: how the bundle's golden file compares with the reference, a result for each case.
        perplexity: None if there was no text to predict.
    """

    bundle: Bundle
    cases: Sequence[Case]
    replayed: Sequence[Replayed]
    tolerance: float
    reference: str | None = None
    golden: Sequence[Replayed] = ()
    perplexity: MeasuredPerplexity | None = None

    @property
    def passed(self) -> bool:
        """Tell whether nothing diverged. Near-ties, and differences of lossy recipes, pass."""
        return not any(r.verdict is Verdict.DIVERGED for r in (*self.replayed, *self.golden))

    def to_json(self) -> dict[str, Any]:
        """Return what `specc test --json` prints. Its counts are of replays: each case counts once a recipe."""
        golden_row = None
        if self.reference:
            golden_row = {**_count(self.golden), "agrees": all(r.at is None for r in self.golden)}
        return {
            "bundle": str(self.bundle.path),
            "cases": len(self.cases),
            "tokens": sum(len(case.token_ids) for case in self.cases),
            "replays": len(self.replayed),
            **_count(self.replayed),
            "tolerance": self.tolerance,
            "reference": self.reference,
            "original": self.bundle.manifest.extra.get("original"),
            "perplexity": asdict(self.perplexity) if self.perplexity else None,
            "golden": golden_row,
            "recipes": [self._recipe_row(name) for name in dict.fromkeys(r.recipe for r in self.replayed)],
            "divergences": [self._divergence(r, r.at) for r in (*self.replayed, *self.golden) if r.at is not None],
        }

    def _recipe_row(self, recipe: str) -> dict[str, Any]:
        results = [r for r in self.replayed if r.recipe == recipe]
        seconds = sum(r.seconds for r in results)
        tokens = sum(max(0, r.tokens - 1) for r in results)  # the prompt's step decodes the first
        return {
            "recipe": recipe,
            "lossless": is_lossless(self.bundle.manifest, self.bundle.recipe(recipe)),
            **_count(results),
            "tokens_per_second": tokens / seconds if seconds else 0.0,
            "mean_acceptance_length": sum(r.mean_acceptance_length for r in results) / len(results),
        }

    def _divergence(self, result: Replayed, at: int) -> dict[str, Any]:
        case = self.cases[result.case]
        return {
            "recipe": result.recipe,
            "case": result.case,
            "prompt": case.prompt,
            "at": at,
            "expected": case.token_ids[at],
            "got": result.token,
            "gap": result.gap,
            "verdict": result.verdict,
        }


def prove(
    path: Path,
    recipes: Sequence[str] = (),
    tolerance: float | None = None,
    reference: str | None = None,
    stage: Stage = lambda title, done, total: None,
    device: Device = CPU,
    text: Path | None = None,
    allow_native_code: bool = False,
) -> Proof:
    """Check the hash of every file of a bundle, then replay its golden cases.

    Args:
        path: the bundle.
        recipes: names of the recipes to replay; empty means all.
        tolerance: a gap of logits below which a difference is a near-tie. None takes the bundle's.
        reference: a model that transformers loads. Its tokens, decoded anew, take the place of the golden ones.
        stage: a function that is called as work goes on.
        device: where the engines run.
        text: a file to measure perplexity on. None takes the golden prompts.
        allow_native_code: run engines that are native code.

    Raises:
        SpeccError: the bundle, a recipe, the reference or the text cannot be used.
    """
    content = perplexity.read(text) if text else None
    bundle = open_bundle(path, allow_native_code)
    manifest = bundle.manifest
    limit = manifest.near_tie_tolerance if tolerance is None else tolerance
    check_tolerance(manifest, limit, "the tolerance")
    names = list(dict.fromkeys(bundle.recipe(name).name for name in recipes or [r.name for r in manifest.recipes]))
    bundle.check()
    golden_cases = cases = golden.read_cases(bundle.file(golden.FILE))
    golden.check_cases(cases, manifest.model)
    session = Session(bundle, device)
    sample = perplexity.from_prompts(cases)
    if content:
        sample = perplexity.from_text(content.name, session.text.encode(content.content), manifest.model.context)
    original = perplexity.original(bundle, sample)
    if reference:
        from specc.exactness.reference import recompute

        stage(f"decode the golden prompts with {reference}", 0, 1)
        cases, original = recompute(reference, manifest.model, golden_cases, sample)
    return Proof(
        bundle=bundle,
        cases=cases,
        replayed=_replay(session, cases, names, limit, stage),
        tolerance=limit,
        reference=reference,
        golden=_compare(golden_cases, cases, limit) if reference else [],
        perplexity=_measure(session, sample, original, stage) if sample.tokens else None,
    )


def _replay(
    session: Session, cases: Sequence[Case], names: Sequence[str], tolerance: float, stage: Stage
) -> list[Replayed]:
    """Replay the cases by the recipes, and report each replay."""
    title, total = f"replay {len(cases)} cases by {len(names)} recipes", len(cases) * len(names)
    done = iter(range(1, total + 1))
    stage(title, 0, total)
    return golden.replay(session, cases, names, tolerance, lambda: stage(title, next(done), total))


def _compare(golden_cases: Sequence[Case], cases: Sequence[Case], tolerance: float) -> list[Replayed]:
    """Compare the bundle's golden file with a reference."""
    pairs = zip(golden_cases, cases, strict=True)
    return [golden.judge(GOLDEN, i, old.token_ids, new, tolerance) for i, (old, new) in enumerate(pairs)]


def _measure(session: Session, sample: Sample, original: float | None, stage: Stage) -> MeasuredPerplexity:
    title, total = f"perplexity on {sample.name}", len(sample.runs)
    done = iter(range(1, total + 1))
    value = perplexity.measure(session, sample, lambda: stage(title, next(done), total))
    return MeasuredPerplexity(sample.name, sample.tokens, value, original)


def _count(results: Sequence[Replayed]) -> dict[str, int]:
    counts = Counter(r.verdict for r in results)
    return {name: counts[verdict] for name, verdict in COUNTED.items()}
