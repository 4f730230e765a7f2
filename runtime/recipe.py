"""A compiled recipe, as data: its engines, its drafter and its acceptance rule, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A speculative-decoding method as one bundle contains it.

    Attributes:
        name: the recipe's name in the bundle.
        drafter: the name of a file in `drafters/`.
        verify: the names of the target's engines that this recipe may run, narrowest first.
        acceptance: the name of a file in `acceptance/`.
        lossless: whether the output has the distribution of plain decoding, if the target is invariant to the width.
        engines: the drafter's engines by the name of its argument, such as {"draft": "draft.layer-skip"}.
        parameters: the drafter's other arguments.
        rule_parameters: those of the acceptance rule that differ from its defaults.
        drafter_version: the version of the drafter's algorithm, as docs/bundle-format.md describes it.
        acceptance_version: the version of the acceptance rule's algorithm.
    """

    name: str
    drafter: str
    verify: tuple[str, ...]
    acceptance: str = "match"
    lossless: bool = True
    engines: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    rule_parameters: Mapping[str, Any] = field(default_factory=dict)
    drafter_version: int = 1
    acceptance_version: int = 1

    @property
    def engine_names(self) -> tuple[str, ...]:
        """The names of all engines that this recipe may run, each once."""
        return tuple(dict.fromkeys((*self.verify, *self.engines.values())))
