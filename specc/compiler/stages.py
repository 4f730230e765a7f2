"""The stages of a compile, and how far it has come, for whoever shows its progress.

Stages take unlike times, so each has a weight: the seconds that it is expected to take. The weights follow recorded
compiles of SmolLM2-135M (tests/specc/compiler/test_stages.py has the times). Only their shares matter. A slower machine
is slower in all stages, so the time left follows from the time that has passed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

TOTAL = 1000  # the parts into which a compile is divided
DETAIL = " · "  # stands between the title of a stage and what it is doing
USUAL_PARAMETERS = 100e6  # before the model is loaded


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The extent of a compile: what its expected time depends on.

    Attributes:
        parameters: of the target.
        golden_tokens: tokens that transformers decodes, over all golden prompts.
        recipes: recipes, plain decoding included.
        searches: whether layers are searched.
        quantises: whether an engine reads 8 or 4 bits.
        widens: whether the checkpoint has a few bits a weight, as GGUF files do, so that loading it widens them.
        assistant: whether there is a draft model.
        tunes: whether `specc tune` runs at the end.
    """

    parameters: float = USUAL_PARAMETERS
    golden_tokens: int
    recipes: int
    searches: bool
    quantises: bool
    widens: bool = False
    assistant: bool = False
    tunes: bool = False


def expected_seconds(extent: Extent) -> dict[str, float]:
    """Return the expected seconds of each stage, in order. A stage that does not run has 0."""
    millions = extent.parameters / 1e6
    return {
        "load": 0.1 + (0.024 if extent.widens else 0.005) * millions,
        "golden": extent.golden_tokens * (0.007 + 0.00034 * millions),
        "capture": 2.7 + 0.031 * millions,
        "assistant": 3.0 if extent.assistant else 0.0,
        "search": (0.3 + 0.012 * millions) if extent.searches else 0.0,
        "quantise": (0.3 + 0.01 * millions) if extent.quantises else 0.0,
        "weights": 0.8 + 0.018 * millions,
        "build": extent.recipes * (0.27 + 0.0038 * millions),
        "measure": 0.7 + 0.2 * millions + extent.recipes * (0.05 + 0.0155 * millions),
        "tune": (20.0 + extent.recipes * 0.1 * millions) if extent.tunes else 0.0,
    }


class Stages:
    """A record of how far a compile has come.

    It calls `report` with a title, the parts done and the parts in all, `TOTAL`. The parts done never fall.
    """

    def __init__(self, report: Callable[[str, int, int], None], weights: Mapping[str, float]) -> None:
        self.report = report
        self.weights = dict(weights)
        self._stage, self._title, self._done = "", "", 0

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Correct the weights, once the size of the model is known."""
        self.weights = dict(weights)

    def begin(self, stage: str, title: str) -> None:
        """Report that a stage begins. Those before it are done."""
        self._stage, self._title = stage, title
        self._tell(title, 0.0)

    def advance(self, done: int, count: int, detail: str = "") -> None:
        """Report that `done` of `count` steps of the stage are done, and what the next one does."""
        number = f"{min(done + 1, count)} of {count}"
        self._tell(f"{self._title}{DETAIL}{f'{detail}, {number}' if detail else number}", done / count)

    def finish(self) -> None:
        """Report that all is done."""
        self.report(self._title, TOTAL, TOTAL)

    def _tell(self, title: str, share: float) -> None:
        names = list(self.weights)
        position = names.index(self._stage)
        before = sum(self.weights[name] for name in names[:position])
        parts = TOTAL * (before + share * self.weights[self._stage]) / sum(self.weights.values())
        self._done = max(self._done, min(TOTAL, int(parts)))
        self.report(title, self._done, TOTAL)
