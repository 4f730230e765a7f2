"""The defaults of a pass, and the text of a miss."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from small_graphs import Layers, hidden_states, small
from torch.fx import GraphModule

from specc.passes.find import ATTENTION, calls, placeholder
from specc.passes.protocol import Miss, Pass

pytestmark = pytest.mark.torch


FILES = sorted((Path(__file__).parents[2] / "passes").glob("*.py"))
MODULES = [import_module("specc.passes" if f.stem == "__init__" else f"specc.passes.{f.stem}") for f in FILES]
PASSES: dict[str, type[Any]] = {
    t.__name__: t for m in MODULES for t in vars(m).values() if isinstance(t, type) and Pass in t.__mro__[1:]
}
OPTIONAL = {
    "BoundPositions",
    "CoreAten",
    "DropAsserts",
    "DropNoops",
    "FoldConstants",
    "FuseRMSNorm",
    "FuseRotary",
    "MergeProjections",
    "OutOfPlace",
    "PadHeads",
    "UnrollCells",
}


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_cannot_change_and_only_those_that_prepare_a_graph_may_find_nothing(name: str) -> None:
    step: Any = object.__new__(PASSES[name])
    with pytest.raises(FrozenInstanceError):
        step.optional = False
    assert PASSES[name].optional is (name in OPTIONAL)


def test_all_optional_passes_are_there() -> None:
    assert set(PASSES) >= OPTIONAL and len(PASSES) == 30


class Nothing(Pass):
    def __call__(self, graph: GraphModule) -> int:
        return 0


def test_a_pass_must_find_something_and_knows_no_near_miss_unless_it_says_otherwise() -> None:
    step = Nothing()
    assert not step.optional and step.nearest_miss(small(lambda x: x * 2, x=torch.ones(1))) is None


def test_a_miss_names_its_node_the_innermost_module_and_the_reason() -> None:
    graph = small(Layers(), x=hidden_states())
    (attention, _), x = calls(graph, ATTENTION), placeholder(graph, "x")
    assert str(Miss(attention, "is odd")) == "attention in model.layers.0.self_attn is odd"
    assert str(Miss(x, "is odd")) == "x is odd"
    attention.meta["nn_module_stack"] = {"": ("", Layers)}
    assert str(Miss(attention, "is odd")) == "attention is odd"


def test_a_miss_fits_no_step_unless_it_says_so_and_cannot_change() -> None:
    miss = Miss(placeholder(small(lambda x: x * 2, x=torch.ones(1)), "x"), "is odd")
    assert miss.steps == 0
    with pytest.raises(FrozenInstanceError):
        miss.steps = 1  # type: ignore[misc]
