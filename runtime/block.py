"""The block: the model rewritten to run N token slots at once against a cache of keys and values.

Prefill, decode, draft and verify are blocks with different values; every engine is one block.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .errors import RecipeError
from .tree import Tree

WEIGHTS = ("fp32", "fp16", "bf16", "int8", "int4")


@dataclass(frozen=True)
class Parents:
    """A topology that changes each step: the parent vector is an input, `parents` [slots] int64."""

    slots: int

    def fits(self, tree: Tree) -> bool:
        return tree.slots <= self.slots


@dataclass(frozen=True)
class Frontier:
    """A frontier: new slots that see chosen ones of the last `span` rows, their own included.

    The inputs are `mask` [slots, span] bool and `depth` [slots] int64, a slot's position less the rows before it.
    Drafters grow trees with it, level by level.
    """

    slots: int
    span: int

    def fits(self, tree: Tree) -> bool:
        return tree.is_chain and tree.slots <= self.slots


@dataclass(frozen=True)
class Layers:
    """What is left out of the model: sublayers by index, and every layer from `exit_after` on."""

    skip_attention: tuple[int, ...] = ()
    skip_mlp: tuple[int, ...] = ()
    exit_after: int | None = None


@dataclass(frozen=True)
class Block:
    """One engine's graph, as data.

    outputs: `ids` (in-graph argmax), `top_k:K` (ids and log-probabilities), `logits`, `hidden:L` (after layer L;
    -1 is the last, before the final norm).
    last_row: the head runs on one row only, the one that the input `row` names.
    weights: the type in which products read their weights, one of `WEIGHTS`.
    model: whose weights; cache: whose rows. Blocks with one cache name share rows.
    """

    topology: Tree | Parents | Frontier
    outputs: tuple[str, ...] = ("ids", "logits")
    layers: Layers = field(default_factory=Layers)
    last_row: bool = False
    weights: str = "fp32"
    model: str = "target"
    cache: str = "target"

    def __post_init__(self) -> None:
        for output in self.outputs:
            if not re.fullmatch(r"ids|logits|top_k:[1-9]\d*|hidden:(-1|\d+)", output):
                raise RecipeError(f"unknown output {output!r}; a block has ids, logits, top_k:K and hidden:LAYER")
        if self.weights not in WEIGHTS:
            raise RecipeError(f"unknown type of weights {self.weights!r}; there are {', '.join(WEIGHTS)}")

    @property
    def slots(self) -> int:
        return self.topology.slots

    def fits(self, tree: Tree) -> bool:
        """Whether this block can run `tree`, unused slots being padding."""
        return self.topology.fits(tree)
