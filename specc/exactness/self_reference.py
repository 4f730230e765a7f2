"""A target whose weights were quantised is its own reference: its plain decoding, held against the original once."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from specc.exactness import golden, perplexity
from specc.exactness.golden import Case
from specc.runtime.bundle import open_bundle, write_manifest
from specc.runtime.sequence import Cache
from specc.runtime.session import Session

ORIGINAL = "original.jsonl"
TOLERANCE = 0.1  # activations are rounded to 8 bits, so logits differ that much between engines of different widths


def refer_to_itself(path: Path, text: Path | None = None) -> None:
    """Make the golden cases of a bundle its own, and keep those of the original model as `original.jsonl`.

    `extra["original"]` says how often the two choose the same next token after the original's own text; beside each
    perplexity of the original's in the manifest stands the bundle's.
    """
    bundle = open_bundle(path)
    session, cases = Session(bundle), golden.read_cases(path / golden.FILE)
    same = [
        session.generate([*c.prompt_ids, *c.token_ids[:i]], 1, recipe="plain").token_ids == [token]
        for c in cases
        for i, token in enumerate(c.token_ids)
    ]
    own = [_decoded(session, c, bundle.manifest.model.eos_token_ids) for c in cases]
    session.cache.sync([])
    samples = perplexity.samples(cases, text, session.text.encode, bundle.manifest.model.context)
    rows = [
        {**row, "bundle": round(perplexity.measure(session, sample), 4)}
        for row, sample in zip(bundle.manifest.extra.get(perplexity.KEY, ()), samples, strict=True)
    ]
    (path / golden.FILE).rename(path / ORIGINAL)
    golden.write_cases(own, path / golden.FILE)
    known = {name: spec for name, spec in bundle.manifest.files.items() if name != golden.FILE}
    agreement = {"tokens": len(same), "agreement": round(sum(same) / len(same), 4)}
    extra = {**bundle.manifest.extra, "original": agreement, perplexity.KEY: rows}
    write_manifest(path, replace(bundle.manifest, files=known, extra=extra, near_tie_tolerance=TOLERANCE))


def _decoded(session: Session, case: Case, eos: Collection[int]) -> Case:
    """The case as the bundle's plain decoding has it, with the gaps of its own logits."""
    cache, feed = Cache(session.cache.store), case.prompt_ids
    tokens: list[int] = []
    gaps: list[float] = []
    while len(tokens) < len(case.token_ids) and not (tokens and tokens[-1] in eos):
        engine = session.engines.prefill(len(feed))
        row = engine.extend(cache, feed)
        assert engine.outputs.logits_NV is not None
        second, first = np.sort(np.partition(engine.outputs.logits_NV[row], -2)[-2:])
        feed = [int(engine.outputs.ids_N[row])]
        tokens += feed
        gaps.append(round(float(first - second), 6))
    return Case(case.prompt, case.prompt_ids, tokens, gaps)


if __name__ == "__main__":
    refer_to_itself(*map(Path, sys.argv[1:]))
