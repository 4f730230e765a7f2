"""What `specc test` reports: the golden cases of a bundle, decoded again by its recipes. Torch for a reference only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from specc.exactness import golden, other_runtime, perplexity
from specc.exactness.golden import Case, Replayed, Verdict
from specc.exactness.other_runtime import Replays
from specc.exactness.perplexity import Sample
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.device import CPU, Device
from specc.runtime.engines import choose
from specc.runtime.errors import RecipeError
from specc.runtime.manifest_checks import check_tolerance
from specc.runtime.session import Session, open_session
from specc.runtime.width_invariance import exact_engine, is_lossless

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
class Counts:
    """How many replays had which verdict."""

    identical: int = 0
    near_ties: int = 0
    diverged: int = 0
    lossy: int = 0

    @classmethod
    def of(cls, results: Sequence[Replayed]) -> Counts:
        """Count the verdicts of some replays."""
        verdicts = Counter(r.verdict for r in results)
        return cls(**{name: verdicts[verdict] for name, verdict in COUNTED.items()})


@dataclass(frozen=True, kw_only=True)
class RecipeRow:
    """All replays by one recipe.

    Attributes:
        recipe: its name.
        lossless: whether it is lossless over this target; under `exact` it is.
        counts: how many replays had which verdict.
        tokens_per_second: its speed.
        mean_acceptance_length: tokens a step, as a mean over the cases.
        plain_tokens_per_second: the speed of plain decoding through the same engine; 0 if that was not measured.
    """

    recipe: str
    lossless: bool
    counts: Counts
    tokens_per_second: float
    mean_acceptance_length: float
    plain_tokens_per_second: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the row as plain data, with its counts beside the other fields."""
        data = asdict(self)
        return {"recipe": data.pop("recipe"), "lossless": data.pop("lossless"), **data.pop("counts"), **data}


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """A replay whose tokens differ from the golden ones. `at` is the index of the first that does, made by `engine`.

    `best` has the two likeliest tokens there by the bundle's own decode engine, with their logits.
    """

    recipe: str
    case: int
    prompt: str
    at: int
    expected: int | None
    got: int | None
    gap: float | None
    verdict: Verdict
    engine: str
    best: list[list[float]]


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
        exact: whether each recipe was compared with plain decoding through its own engine, and not with the cases.
        runtime: what decoded the cases: python for specc itself, the name of another runtime, or a program.
        left_out: the recipes that the runtime does not have, with the reasons.
    """

    bundle: Bundle
    cases: Sequence[Case]
    replayed: Sequence[Replayed]
    tolerance: float
    reference: str | None = None
    golden: Sequence[Replayed] = ()
    perplexity: MeasuredPerplexity | None = None
    exact: bool = False
    runtime: str = other_runtime.PYTHON
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Tell whether nothing diverged. Near-ties, and differences of lossy recipes, pass."""
        return not any(r.verdict is Verdict.DIVERGED for r in (*self.replayed, *self.golden))

    @property
    def tokens(self) -> int:
        """The tokens of all cases."""
        return sum(len(case.token_ids) for case in self.cases)

    @property
    def counts(self) -> Counts:
        """The verdicts of all replays: each case counts once a recipe."""
        return Counts.of(self.replayed)

    @property
    def golden_counts(self) -> Counts | None:
        """How the golden file compares with the reference; None without a reference."""
        return Counts.of(self.golden) if self.reference is not None else None

    def rows(self) -> list[RecipeRow]:
        """Return a row for each recipe, in the order of the replays."""
        return [self._recipe_row(name) for name in dict.fromkeys(r.recipe for r in self.replayed)]

    def divergences(self) -> list[Divergence]:
        """Return each replay whose tokens differ, and each golden case that differs from the reference."""
        return [
            Divergence(
                recipe=r.recipe,
                case=r.case,
                prompt=self.cases[r.case].prompt,
                at=r.at,
                expected=r.expected,
                got=r.token,
                gap=r.gap,
                verdict=r.verdict,
                engine=r.engine,
                best=[[token, logit] for token, logit in r.best],
            )
            for r in (*self.replayed, *self.golden)
            if r.at is not None
        ]

    def to_json(self) -> dict[str, Any]:
        """Return what `specc test --json` prints."""
        golden_row = None
        if self.golden_counts:
            golden_row = {**asdict(self.golden_counts), "agrees": all(r.at is None for r in self.golden)}
        return {
            "bundle": str(self.bundle.path),
            "runtime": self.runtime,
            "exact": self.exact,
            "cases": len(self.cases),
            "tokens": self.tokens,
            "replays": len(self.replayed),
            **asdict(self.counts),
            "tolerance": self.tolerance,
            "reference": self.reference,
            "original": self.bundle.manifest.extra.get("original"),
            "perplexity": asdict(self.perplexity) if self.perplexity else None,
            "golden": golden_row,
            "recipes": [row.to_json() for row in self.rows()],
            "left_out": dict(self.left_out),
            "divergences": [asdict(divergence) for divergence in self.divergences()],
        }

    def _recipe_row(self, recipe: str) -> RecipeRow:
        results = [r for r in self.replayed if r.recipe == recipe]
        return RecipeRow(
            recipe=recipe,
            lossless=self.exact or is_lossless(self.bundle.manifest, self.bundle.recipe(recipe)),
            counts=Counts.of(results),
            tokens_per_second=_speed(results, sum(r.seconds for r in results)),
            mean_acceptance_length=sum(r.mean_acceptance_length for r in results) / len(results),
            plain_tokens_per_second=_speed(results, sum(r.plain_seconds for r in results)),
        )


def prove(
    path: Path,
    recipes: Sequence[str] = (),
    tolerance: float | None = None,
    reference: str | None = None,
    stage: Stage = lambda title, done, total: None,
    device: Device = CPU,
    text: Path | None = None,
    allow_native_code: bool = False,
    exact: bool = False,
    runtime: str = other_runtime.PYTHON,
) -> Proof:
    """Check the hash of every file of a bundle, then replay its golden cases.

    Args:
        path: the bundle.
        recipes: names of the recipes to replay; empty means all.
        tolerance: a gap of logits below which a difference is a near-tie. None takes the bundle's,
            and 0.001 at most.
        reference: a model that transformers loads. Its tokens, decoded anew, take the place of the golden ones.
        stage: a function that is called as work goes on.
        device: where the engines run.
        text: a file to measure perplexity on. None takes the golden prompts.
        allow_native_code: run engines that are native code.
        exact: decode each recipe through one engine, and demand the tokens of plain decoding through that engine. If no
            recipes are named, those that verify chains are taken.
        runtime: what decodes the cases: python for specc itself, c, node, or the path of a program. Another runtime
            replays the recipes that it has, and no perplexity is measured.

    Raises:
        SpeccError: the bundle, a recipe, the reference or the text cannot be used.
    """
    content = perplexity.read(text) if text else None
    bundle = open_bundle(path, allow_native_code)
    manifest = bundle.manifest
    limit = golden.implied_tolerance(manifest) if tolerance is None else tolerance
    check_tolerance(manifest, limit, "the tolerance")
    golden.check_reference(reference)
    own = runtime == other_runtime.PYTHON
    if not own:
        other_runtime.find_program(runtime)  # The rest takes long.
    if exact and not own:
        raise RecipeError(f"exact: the runtime {runtime} has no exact decoding; leave out --exact or --runtime")
    replayable = recipes or (_replayable(bundle, device, exact) if own else ())
    names = list(dict.fromkeys(bundle.recipe(name).name for name in replayable))
    golden_cases = cases = golden.checked_cases(bundle)
    golden.check_gaps(cases, limit, golden.FILE)
    session = open_session(bundle, device)
    sample = perplexity.from_prompts(cases)
    if content:
        sample = perplexity.from_text(content.name, session.text.encode(content.content), manifest.model.context)
    original = perplexity.original(bundle, sample)
    if reference is not None:
        from specc.exactness.reference import recompute

        stage(f"decode the golden prompts with {reference}", 0, 1)
        cases, original = recompute(reference, manifest.model, golden_cases, sample)
    replays = _replay(session, cases, names, None if exact else limit, stage, runtime)
    return Proof(
        bundle=bundle,
        cases=cases,
        replayed=replays.results,
        left_out=replays.left_out,
        tolerance=0.0 if exact else limit,
        exact=exact,
        runtime=runtime,
        reference=reference,
        golden=_compare(golden_cases, cases, limit) if reference is not None else [],
        perplexity=_measure(session, sample, original, stage) if sample.tokens and own else None,
    )


def _replayable(bundle: Bundle, device: Device, exact: bool) -> list[str]:
    """Name the recipes that can be replayed: all, or those with an engine for exact decoding.

    Raises:
        RecipeError: there is none.
    """
    recipes = bundle.manifest.recipes
    if not exact:
        return [r.name for r in recipes]
    backend = choose(bundle, device)
    names = [r.name for r in recipes if exact_engine(bundle.manifest, r, backend)]
    if not names:
        raise RecipeError("exact: no recipe of this bundle verifies chains; compile one, such as prompt-lookup")
    return names


def _replay(
    session: Session,
    cases: Sequence[Case],
    names: Sequence[str],
    tolerance: float | None,
    stage: Stage,
    runtime: str = other_runtime.PYTHON,
) -> Replays:
    """Replay the cases by the recipes, and report each replay. Without a tolerance, replay them exactly."""
    if runtime != other_runtime.PYTHON:
        title, done = f"replay {len(cases)} cases by {runtime}", count()
        bundle, limit = session.bundle, tolerance or 0.0
        total = len(cases) * len(names or bundle.manifest.recipes)
        replays = other_runtime.replay(runtime, bundle, cases, names, limit, lambda: stage(title, next(done), total))
        results = golden.add_best_logits(session, cases, replays.results)
        return replace(replays, results=golden.confirm_near_ties(bundle, results))
    title, total = f"replay {len(cases)} cases by {len(names)} recipes", len(cases) * len(names)
    done = count(1)
    stage(title, 0, total)
    if tolerance is None:
        results = golden.replay_exactly(session, cases, names, lambda: stage(title, next(done), total))
        return Replays(results=results, left_out={})
    results = golden.replay(session, cases, names, tolerance, lambda: stage(title, next(done), total))
    results = golden.add_best_logits(session, cases, golden.name_engines(session, cases, results))
    return Replays(results=golden.confirm_near_ties(session.bundle, results), left_out={})


def _speed(results: Sequence[Replayed], seconds: float) -> float:
    """Return tokens a second. The prompt's step decodes the first token of each case."""
    return sum(max(0, r.tokens - 1) for r in results) / seconds if seconds else 0.0


def _compare(golden_cases: Sequence[Case], cases: Sequence[Case], tolerance: float) -> list[Replayed]:
    """Compare the bundle's golden file with a reference."""
    pairs = zip(golden_cases, cases, strict=True)
    return [golden.judge(GOLDEN, i, old.token_ids, new, tolerance) for i, (old, new) in enumerate(pairs)]


def _measure(session: Session, sample: Sample, original: float | None, stage: Stage) -> MeasuredPerplexity:
    title, total = f"perplexity on {sample.name}", len(sample.runs)
    done = iter(range(1, total + 1))
    value = perplexity.measure(session, sample, lambda: stage(title, next(done), total))
    return MeasuredPerplexity(sample.name, sample.tokens, value, original)
