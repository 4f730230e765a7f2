"""How well a model predicts a text: its perplexity there, by a bundle's own engines. No torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specc.exactness.golden import Case
from specc.runtime.bundle import Bundle
from specc.runtime.engine import Engine
from specc.runtime.errors import PromptError
from specc.runtime.sequence import Cache
from specc.runtime.session import Session
from specc.runtime.tree import Tree

WINDOW = 512  # tokens of a text that are predicted from one another, at most
KEY = "perplexity"  # of the manifest's `extra`: what the original model makes of some texts


@dataclass(frozen=True)
class Sample:
    """Runs of tokens; each but the first of a run is predicted from those before it."""

    name: str
    runs: Sequence[Sequence[int]]

    @property
    def tokens(self) -> int:
        """How many are predicted."""
        return sum(len(run) - 1 for run in self.runs)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(repr([list(run) for run in self.runs]).encode()).hexdigest()

    def perplexity(self, surprise: float) -> float:
        """surprise: the sum over predicted tokens of -log p."""
        return math.exp(surprise / self.tokens)


def read(file: Path) -> str:
    """A text file. Raises PromptError."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise PromptError(f"cannot read a text from {file}: {e}; give a text file in UTF-8") from e


def from_text(name: str, ids: Sequence[int], context: int) -> Sample:
    """A text's tokens, in windows. Raises PromptError where there is nothing to predict."""
    size = min(WINDOW, context)
    runs = [ids[start : start + size] for start in range(0, len(ids), size)]
    sample = Sample(name, [run for run in runs if len(run) > 1])
    if not sample.runs:
        raise PromptError(f"{name} holds {len(ids)} tokens, and perplexity needs 2; give a longer text")
    return sample


def from_prompts(cases: Sequence[Case]) -> Sample:
    """The golden prompts' own texts; those of one token say nothing."""
    return Sample("golden prompts", [c.prompt_ids[:WINDOW] for c in cases if len(c.prompt_ids) > 1])


def samples(
    cases: Sequence[Case], text: Path | None, encode: Callable[[str], Sequence[int]], context: int
) -> list[Sample]:
    """What a compile looks at: the golden prompts, and a text if there is one."""
    more = [from_text(text.name, encode(read(text)), context)] if text else []
    return [sample for sample in (from_prompts(cases), *more) if sample.tokens]


def measure(session: Session, sample: Sample, advance: Callable[[], None] = lambda: None) -> float:
    """By the session's widest engine of those that verify chains. What the session held is forgotten."""
    engine = session.engines[_widest(session)]
    surprise = 0.0
    for run in sample.runs:
        surprise += _surprise(engine, Cache(session.cache.store), run)
        advance()
    session.cache.sync([])
    return sample.perplexity(surprise)


def original(bundle: Bundle, sample: Sample) -> float | None:
    """The original model's, if it was measured on this sample when the bundle was compiled."""
    rows: Sequence[Any] = bundle.manifest.extra.get(KEY, ())
    return next((row["original"] for row in rows if row["sha256"] == sample.sha256), None)


def _widest(session: Session) -> str:
    """The target's, with logits at every slot: decode is one, and every chain that a recipe verifies with."""
    names = {name for recipe in session.bundle.manifest.recipes for name in recipe.verify} | {"decode"}
    blocks = {e.name: e.block for e in session.bundle.manifest.engines if e.name in names}
    chains = [
        name
        for name, b in blocks.items()
        if isinstance(b.topology, Tree) and b.topology.is_chain and "logits" in b.outputs
    ]
    return max(chains, key=lambda name: blocks[name].slots)


def _surprise(engine: Engine, cache: Cache, run: Sequence[int]) -> float:
    total = 0.0
    for start in range(0, len(run) - 1, engine.slots):
        chunk = run[start : start + engine.slots]
        right = run[start + 1 : start + 1 + engine.slots]
        engine.run(cache, chunk, Tree.chain(len(chunk)))
        engine.commit(cache, range(len(chunk)))
        assert engine.outputs.logits_NV is not None
        logits_NV = engine.outputs.logits_NV[: len(right)].astype(np.float64)
        best_N = logits_NV.max(-1)
        total_N = best_N + np.log(np.exp(logits_NV - best_N[:, None]).sum(-1))
        total += float((total_N - logits_NV[np.arange(len(right)), right]).sum())
    return total
