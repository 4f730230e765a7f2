"""What `specc test` finds: the golden cases, decoded again by every recipe of a bundle. Torch for a reference only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from specc.exactness import golden, perplexity
from specc.exactness.golden import Case, Replayed
from specc.exactness.perplexity import Sample
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.device import CPU, Device
from specc.runtime.session import Session

GOLDEN = "the bundle's golden file"
VERDICTS = {"identical": "identical", "near-tie": "near_ties", "diverged": "diverged", "lossy": "lossy"}


@dataclass(frozen=True)
class Proof:
    """Every case by every recipe; with a `reference`, the golden file held against it too."""

    bundle: Bundle
    cases: Sequence[Case]
    replayed: Sequence[Replayed]
    tolerance: float
    reference: str | None = None
    golden: Sequence[Replayed] = ()
    perplexity: Mapping[str, Any] | None = None  # on a text, the bundle's own and, where known, the original model's

    @property
    def passed(self) -> bool:
        return not any(r.verdict == "diverged" for r in (*self.replayed, *self.golden))

    def to_json(self) -> dict[str, Any]:
        """`identical`, `near_ties` and `diverged` count replays: each case once a recipe."""
        everything = [*self.replayed, *self.golden]
        return {
            "bundle": str(self.bundle.path),
            "cases": len(self.cases),
            "tokens": sum(len(c.token_ids) for c in self.cases),
            "replays": len(self.replayed),
            **_count(self.replayed),
            "tolerance": self.tolerance,
            "reference": self.reference,
            "original": self.bundle.manifest.extra.get("original"),
            "perplexity": self.perplexity,
            "golden": {**_count(self.golden), "agrees": not any(r.at is not None for r in self.golden)}
            if self.reference
            else None,
            "recipes": [self._row(name) for name in dict.fromkeys(r.recipe for r in self.replayed)],
            "divergences": [self._divergence(r) for r in everything if r.at is not None],
        }

    def _row(self, recipe: str) -> dict[str, Any]:
        mine = [r for r in self.replayed if r.recipe == recipe]
        seconds, steps = sum(r.seconds for r in mine), sum(max(0, r.tokens - 1) for r in mine)
        return {
            "recipe": recipe,
            "lossless": self.bundle.recipe(recipe).lossless,
            **_count(mine),
            "tokens_per_second": steps / seconds if seconds else 0.0,
            "mean_acceptance_length": sum(r.mean_acceptance_length for r in mine) / len(mine),
        }

    def _divergence(self, r: Replayed) -> dict[str, Any]:
        case = self.cases[r.case]
        return {
            "recipe": r.recipe,
            "case": r.case,
            "prompt": case.prompt,
            "at": r.at,
            "expected": case.token_ids[r.at] if r.at is not None else None,
            "got": r.token,
            "gap": r.gap,
            "verdict": r.verdict,
        }


def prove(
    path: Path, recipes: Sequence[str] = (), tolerance: float | None = None, reference: str | None = None,
    stage: Callable[[str, int, int], None] = lambda title, done, total: None, place: Device = CPU,
    text: Path | None = None,
) -> Proof:  # fmt: skip
    """Check every file's hash, then replay the golden cases by the recipes named, or all.

    With a `reference`, a model that transformers loads, its tokens are computed anew and take the golden ones' place.
    text: a file to report perplexity on; None takes the golden prompts' own texts. Raises SpeccError.
    """
    told = perplexity.read(text) if text else None
    bundle = open_bundle(path)
    manifest = bundle.manifest
    limit = manifest.near_tie_tolerance if tolerance is None else tolerance
    names = list(dict.fromkeys(bundle.recipe(name).name for name in recipes or [r.name for r in manifest.recipes]))
    bundle.check()
    own = cases = golden.read_cases(bundle.file(golden.FILE))
    session = Session(bundle, place)
    sample = perplexity.from_prompts(cases)
    if text and told is not None:
        sample = perplexity.from_text(text.name, session.text.encode(told), manifest.model.context)
    original, agreement = perplexity.original(bundle, sample), []
    if reference:
        from specc.exactness.reference import recompute

        stage(f"decode the golden prompts with {reference}", 0, 1)
        cases, original = recompute(reference, manifest.model, own, sample)
        agreement = [
            golden.judge(GOLDEN, i, old.token_ids, new, limit)
            for i, (old, new) in enumerate(zip(own, cases, strict=True))
        ]
    total = len(cases) * len(names)
    done = iter(range(1, total + 1))
    title = f"replay {len(cases)} cases by {len(names)} recipes"
    stage(title, 0, total)
    replayed = golden.replay(session, cases, names, limit, lambda: stage(title, next(done), total))
    lossy = {r.name for r in manifest.recipes if not r.lossless}  # these may differ, and say so
    replayed = [replace(r, verdict="lossy") if r.at is not None and r.recipe in lossy else r for r in replayed]
    return Proof(bundle, cases, replayed, limit, reference, agreement, _perplexity(session, sample, original, stage))


def _perplexity(
    session: Session, sample: Sample, original: float | None, stage: Callable[[str, int, int], None]
) -> dict[str, Any] | None:
    if not sample.tokens:
        return None
    done, total = iter(range(1, len(sample.runs) + 1)), len(sample.runs)
    own = perplexity.measure(session, sample, lambda: stage(f"perplexity on {sample.name}", next(done), total))
    return {"text": sample.name, "tokens": sample.tokens, "value": own, "original": original}


def _count(replayed: Sequence[Replayed]) -> dict[str, int]:
    return {key: sum(r.verdict == verdict for r in replayed) for verdict, key in VERDICTS.items()}
