"""A target whose weights were quantised is its own reference: the golden tokens become those of its plain decoding.

Run as a module, with a bundle and the text file of the compile if there was one: the compiler does so in a process of
its own.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from specc.exactness import golden, perplexity
from specc.exactness.golden import Case
from specc.runtime.bundle import open_bundle
from specc.runtime.bundle_writer import write_manifest
from specc.runtime.sampling_defaults import PLAIN_GREEDY
from specc.runtime.sequence import Cache
from specc.runtime.session import Session, open_session

ORIGINAL = "original.jsonl"


def refer_to_itself(path: Path, text: Path | None = None) -> None:
    """Replace the golden cases of a bundle by its own, and keep the original model's as `original.jsonl`.

    The manifest gets `extra["original"]`: the share of tokens of the original's text that the bundle would have chosen,
    too. Each row of `extra["perplexity"]` gets the bundle's perplexity beside the original model's.

    Args:
        path: the bundle.
        text: the text file that the compile measured the original's perplexity on.
    """
    bundle = open_bundle(path, allow_native_code=True)  # It was compiled here.
    manifest, session = bundle.manifest, open_session(bundle)
    cases = golden.read_cases(path / golden.FILE)
    agreements = [agrees for case in cases for agrees in _agreements(session, case)]
    eos = manifest.model.eos_token_ids
    own_cases = [decode_plainly(session, c.prompt, c.prompt_ids, len(c.token_ids), eos) for c in cases]
    session.cache.sync([])
    content = perplexity.read(text) if text else None
    samples = perplexity.samples(cases, content, session.text.encode, manifest.model.context)
    rows = [
        {**row, "bundle": round(perplexity.measure(session, sample), 4)}
        for row, sample in zip(manifest.extra.get(perplexity.KEY, ()), samples, strict=True)
    ]
    (path / golden.FILE).rename(path / ORIGINAL)
    golden.write_cases(own_cases, path / golden.FILE)
    agreement = {"tokens": len(agreements), "agreement": round(sum(agreements) / len(agreements), 4)}
    unchanged = {name: spec for name, spec in manifest.files.items() if name != golden.FILE}
    extra = {**manifest.extra, "original": agreement, perplexity.KEY: rows}
    write_manifest(path, replace(manifest, files=unchanged, extra=extra))


def _agreements(session: Session, case: Case) -> Sequence[bool]:
    """Tell for each golden token whether plain decoding chooses it after the golden text before it."""
    return [
        session.generate([*case.prompt_ids, *case.token_ids[:i]], 1, recipe="plain", **PLAIN_GREEDY).token_ids
        == [token]
        for i, token in enumerate(case.token_ids)
    ]


def decode_plainly(session: Session, text: str, prompt: Sequence[int], count: int, eos: Collection[int]) -> Case:
    """Decode a prompt plainly, and return a case with the bundle's tokens and the gaps of its own logits.

    Args:
        session: the bundle, loaded.
        text: the prompt as text.
        prompt: its tokens.
        count: tokens to decode at most.
        eos: tokens that end an answer.
    """
    cache, feed = Cache(session.cache.store), list(prompt)
    tokens: list[int] = []
    gaps: list[float] = []
    while len(tokens) < count and not (tokens and tokens[-1] in eos):
        engine = session.engines.prefill(len(feed))
        row = engine.extend(cache, feed)
        assert engine.outputs.logits_NV is not None
        second, first = np.sort(np.partition(engine.outputs.logits_NV[row], -2)[-2:])
        feed = [int(engine.outputs.ids_N[row])]
        tokens += feed
        gaps.append(round(float(first - second), 6))
    return Case(text, list(prompt), tokens, gaps)


if __name__ == "__main__":
    refer_to_itself(*map(Path, sys.argv[1:]))
