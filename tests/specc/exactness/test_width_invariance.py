"""The target at several widths: exact ones, ones that round differently, and slots that do not agree."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toys import Toy, World

from specc.exactness.golden import Case
from specc.exactness.width_invariance import WidthInvariancePolicy, measure
from specc.recipes import DECODE, prefill
from specc.recipes.guess_trees import StateTree
from specc.runtime.block import Block, Parents, Pruning
from specc.runtime.engine import Engine
from specc.runtime.manifest import EngineSpec
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree

PROMPTS = ([3, 1, 4, 1, 5], [9, 2])
TREE = Tree((-1, 0, 0, 1, 1, 3))
WIDE = ("ids", "logits")
STREAMS = StateTree(Tree((-1, 0, 0, 1)), (1,) * 4).topology("speculative_streaming")
RECIPES = (
    Recipe(name="plain", drafter="plain", verify=("decode",)),
    Recipe(name="prompt-lookup", drafter="prompt-lookup", verify=("chain-4", "chain-6")),
    Recipe(name="early-exit", drafter="early-exit", verify=("tree",)),
    Recipe(name="dynamic-tree", drafter="dynamic-tree", verify=("parents",)),
    Recipe(name="speculative-streaming", drafter="guess-slots", verify=("streams",)),
)
BLOCKS = {
    "decode": DECODE,
    "prefill": prefill(),
    "chain-4": Block(Tree.chain(4), WIDE),
    "chain-6": Block(Tree.chain(6), WIDE),
    "tree": Block(TREE, WIDE),
    "parents": Block(Parents(5), WIDE),
    "streams": Block(STREAMS, (*WIDE, "kept"), pruning=Pruning(1, 2)),
}


class Engines(dict[str, Engine]):
    """The engines of a world by name."""

    backend = "toy"

    def __init__(self, world: World) -> None:
        super().__init__({name: world.engine(block) for name, block in BLOCKS.items()})

    def specs(self) -> list[EngineSpec]:
        return [
            EngineSpec(name=n, backend="toy", file="f", block=b, layers=(), inputs=(), outputs=(), passes=())
            for n, b in BLOCKS.items()
        ]

    def prefill(self, tokens: int) -> Engine:
        return self["prefill"]


def session(runner: type[Toy] = Toy, recipes: tuple[Recipe, ...] = RECIPES) -> Any:
    world = World(runner=runner)
    engines = Engines(world)
    manifest = SimpleNamespace(recipes=recipes, engines=engines.specs())
    return SimpleNamespace(bundle=SimpleNamespace(manifest=manifest), engines=engines, cache=world.cache)


def cases() -> list[Case]:
    """Return golden cases of the toy model, 20 tokens each."""
    decoder = World().method("plain")
    return [Case("", prompt, decoder.run(prompt, 20)[0], [1.0] * 20) for prompt in PROMPTS]


def test_a_target_that_computes_the_same_at_every_width_is_invariant() -> None:
    """On chains and trees of every kind: each slot of a tree sees what a step of plain decoding sees.

    One engine drops tokens, so that it runs the end of a path again.
    """
    measured = measure(session(), cases())
    assert measured is not None and measured.holds and measured.slots_agree
    assert (measured.backend, measured.difference, measured.changed, measured.tokens) == ("toy", 0.0, 0.0, 40)
    assert measured.slots == (4, 5, 6, 8)


def test_a_target_that_amplifies_last_bits_is_not_invariant_though_a_short_text_shows_none() -> None:
    measured = measure(session(), cases(), amplified=True)
    assert measured is not None and not measured.holds and measured.difference == 0.0


class Wide(Toy):
    """A model whose logits shift by `shift` for every second token where a step has 6 slots."""

    shift = 0.0

    def head(self, token_N: np.ndarray, x_N: np.ndarray) -> None:
        super().head(token_N, x_N)
        if self.block.slots == 6 and not self.block.last_row:
            self.outputs["logits"][0, :, ::2] += self.shift


@pytest.mark.parametrize(("shift", "holds"), [(1e-4, True), (2e-3, False), (3.0, False)])
def test_a_width_that_rounds_differently_is_found(shift: float, holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Wide, "shift", shift)
    measured = measure(session(Wide), cases())
    assert measured is not None and measured.holds is holds
    assert measured.difference == pytest.approx(shift, rel=1e-2)
    assert (measured.changed > 0.2) == (shift == 3.0)


class Placed(Toy):
    """A model whose logits depend a little on the slot."""

    def head(self, token_N: np.ndarray, x_N: np.ndarray) -> None:
        super().head(token_N, x_N)
        self.outputs["logits"][0] += 1e-5 * np.arange(self.outputs["logits"].shape[1], dtype=np.float32)[:, None]


class Mixed(Toy):
    """A model whose logits depend a little on the tokens of the other slots."""

    def head(self, token_N: np.ndarray, x_N: np.ndarray) -> None:
        super().head(token_N, x_N)
        self.outputs["logits"][0] += np.float32(1e-5) * token_N.sum()


@pytest.mark.parametrize("runner", [Placed, Mixed])
def test_slots_that_do_not_agree_in_the_last_bit_are_found(runner: type[Toy]) -> None:
    measured = measure(session(runner), cases())
    assert measured is not None and not measured.slots_agree


def test_engines_that_are_all_wider_than_the_bound_are_compared_by_the_narrowest() -> None:
    measured = measure(session(), cases(), WidthInvariancePolicy(widest=3))
    assert measured is not None and measured.holds and measured.slots == (4,)


def test_plain_decoding_alone_is_not_measured() -> None:
    assert measure(session(recipes=RECIPES[:1]), cases()) is None


def test_rows_of_the_conversation_are_forgotten() -> None:
    toys = session()
    measure(toys, cases())
    assert toys.cache.tokens == []
