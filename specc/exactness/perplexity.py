"""How well a model predicts a text: its perplexity there, by a bundle's own engines. No torch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specc.bounded_read import read_text, reason_of
from specc.exactness.golden import Case
from specc.runtime.bundle import Bundle
from specc.runtime.call import Call
from specc.runtime.engine import Engine
from specc.runtime.errors import PromptError
from specc.runtime.sequence import Cache
from specc.runtime.session import Session
from specc.runtime.tree import Tree

WINDOW = 512  # tokens of a text that are predicted from one another, at most
KEY = "perplexity"  # in the manifest's `extra`: the original model's perplexity on some texts


@dataclass(frozen=True)
class Text:
    """A text file that was read."""

    name: str
    content: str


@dataclass(frozen=True)
class Sample:
    """A sample of a text: runs of tokens. Each token but the first of a run is predicted from those before it."""

    name: str
    runs: Sequence[Sequence[int]]

    @property
    def tokens(self) -> int:
        """Count the tokens that are predicted."""
        return sum(len(run) - 1 for run in self.runs)

    @property
    def sha256(self) -> str:
        """Return a digest by which a bundle knows the sample again."""
        return hashlib.sha256(repr([list(run) for run in self.runs]).encode()).hexdigest()

    def perplexity(self, surprise: float) -> float:
        """Return the perplexity for a surprise, the sum of -log p over the predicted tokens."""
        return math.exp(surprise / self.tokens)


def read(file: Path) -> Text:
    """Read a text file. Raises PromptError."""
    try:
        with file.open("rb") as opened:
            return Text(file.name, read_text(opened, file).replace("\r\n", "\n").replace("\r", "\n"))
    except (OSError, UnicodeDecodeError) as e:
        raise PromptError(f"cannot read a text from {file}: {reason_of(e)}; give a text file in UTF-8") from e


def from_text(name: str, ids: Sequence[int], context: int) -> Sample:
    """Cut a text's tokens into windows that fit the context. Raises PromptError if nothing is left to predict."""
    size = min(WINDOW, context)
    runs = [ids[start : start + size] for start in range(0, len(ids), size)]
    sample = Sample(name, [run for run in runs if len(run) > 1])
    if not sample.runs:
        raise PromptError(f"{name} holds {len(ids)} tokens, and perplexity needs 2; give a longer text")
    return sample


def from_prompts(cases: Sequence[Case]) -> Sample:
    """Return the golden prompts as a sample. Prompts of one token are left out: they predict nothing."""
    return Sample("golden prompts", [case.prompt_ids[:WINDOW] for case in cases if len(case.prompt_ids) > 1])


def samples(
    cases: Sequence[Case], text: Text | None, encode: Callable[[str], Sequence[int]], context: int
) -> list[Sample]:
    """Return the samples of a compile: the golden prompts, and a text if there is one. Empty ones are left out."""
    texts = [from_prompts(cases)]
    if text:
        texts.append(from_text(text.name, encode(text.content), context))
    return [sample for sample in texts if sample.tokens]


def measure(session: Session, sample: Sample, advance: Callable[[], None] = lambda: None) -> float:
    """Measure the perplexity of a bundle, by the widest engine that verifies chains.

    The session forgets the rows of its conversation. `advance` is called after each run of the sample.
    """
    engine = session.engines[_widest_chain(session.bundle)]
    surprise = 0.0
    for run in sample.runs:
        surprise += surprise_of(engine, Cache(session.cache.store), run)
        advance()
    session.cache.sync([])
    return sample.perplexity(surprise)


def original(bundle: Bundle, sample: Sample) -> float | None:
    """Return the original model's perplexity on a sample, if it was measured when the bundle was compiled."""
    rows: Sequence[Any] = bundle.manifest.extra.get(KEY, ())
    return next((row["original"] for row in rows if row["sha256"] == sample.sha256), None)


def surprise_of(engine: Engine, cache: Cache, run: Sequence[int]) -> float:
    """Return the sum of -log p of a run's tokens but the first.

    Args:
        engine: a chain of the target with logits at every slot. The run goes through it in chunks of its width.
        cache: an empty cache.
        run: tokens.
    """
    total = 0.0
    for start in range(0, len(run) - 1, engine.slots):
        chunk = run[start : start + engine.slots]
        following = run[start + 1 : start + 1 + engine.slots]
        Call(engine, cache, 0, chunk, Tree.chain(len(chunk))).run()
        cache.commit(chunk, range(len(chunk)))
        assert engine.outputs.logits_NV is not None
        logits_NV = engine.outputs.logits_NV[: len(following)].astype(np.float64)
        best_N = logits_NV.max(-1)
        total_N = best_N + np.log(np.exp(logits_NV - best_N[:, None]).sum(-1))
        total += float((total_N - logits_NV[np.arange(len(following)), following]).sum())
    return total


def _widest_chain(bundle: Bundle) -> str:
    """Name the target's widest engine with logits at every slot: decode, or a chain that a recipe verifies with."""
    names = {name for recipe in bundle.manifest.recipes for name in recipe.verify} | {"decode"}
    slots: dict[str, int] = {}
    for engine in bundle.manifest.engines:
        topology = engine.block.topology
        is_chain = isinstance(topology, Tree) and topology.is_chain and not engine.block.quantized_group
        if engine.name in names and is_chain and "logits" in engine.block.outputs:
            slots[engine.name] = engine.block.slots
    return max(slots, key=lambda name: slots[name])
