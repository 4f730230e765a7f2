"""PruneTree: layers that run on the likeliest tokens of a tree alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from blocks import CAPACITY, prefilled, run
from graphs import EIGHT, model, prepared, tokens
from guess_starts import module_of
from small_graphs import Layers, hidden_states, small
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from specc import passes
from specc.passes.find import LINEARS, calls
from specc.passes.graft import Graft
from specc.passes.guess_slots import GuessSlots
from specc.passes.likeliest_tokens import LikeliestTokens
from specc.passes.prune_tree import PruneTree
from specc.recipes.guess_trees import StateTree
from specc.runtime.block import Block, GuessTree, Pruning
from specc.runtime.errors import PassError
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

TREE = Tree((-1, 0, 0, 1, 1, 2, 3, 3))
GUESSES = 2
TOPOLOGY = StateTree(TREE, (GUESSES,) * TREE.slots).topology("guess")
START = tokens().shape[1]
FAMILIES = ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in EIGHT[1:])]


def ids(first: int = 10) -> Tensor:
    drafted = torch.arange(first, first + TREE.slots)
    return torch.cat([drafted, torch.full((TOPOLOGY.slots - TREE.slots,), 5)])[None]


def built(family: str, pruning: Pruning | None, begin: int | None = 1) -> GraphModule:
    """Return the graph of a block whose guesses begin after a layer."""
    graph, size = prepared(family), model(family).config.hidden_size
    block = Block(TOPOLOGY) if pruning is None else Block(TOPOLOGY, ("ids", "logits", "kept"), pruning=pruning)
    guesses = GuessSlots("guess", begin, GUESSES, module_of(size))
    passes.run(passes.pipeline(block, CAPACITY, guesses=[guesses]), graph)
    return graph


def outputs_of(family: str, pruning: Pruning | None, begin: int | None = 1, first: int = 10) -> dict[str, Tensor]:
    return run(built(family, pruning, begin), ids(first), prefilled(family), START)


def differences(whole: dict[str, Tensor], pruned: dict[str, Tensor]) -> dict[str, float]:
    """Return by how much logits, and rows of the kept tokens, differ at most from those without pruning."""
    kept_slots = pruned["kept"][0].tolist()
    left = [*kept_slots, *(guess for token in kept_slots for guess in TOPOLOGY.guesses[token])]
    values = {"logits": (pruned["logits"][0] - whole["logits"][0, left]).abs().max()}
    rows = [START + token for token in kept_slots]
    for name in (name for name in whole if name.startswith("present.")):
        values[name] = (pruned[name][:, :, rows] - whole[name][:, :, rows]).abs().max()
    return {name: float(value) for name, value in values.items()}


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_kept_has_the_logits_and_the_rows_that_it_has_without_pruning(family: str) -> None:
    whole = outputs_of(family, None)
    for after, count in ((1, 1), (1, 4), (2, 5), (1, TREE.slots)):
        pruned = outputs_of(family, Pruning(after, count))
        assert pruned["kept"].shape == (1, count)
        assert pruned["logits"].shape[1] == pruned["ids"].shape[1] == count * (1 + GUESSES)
        assert max(differences(whole, pruned).values()) < 1e-4
        if count == TREE.slots:  # Then the outputs are all rows, in order.
            assert pruned["kept"].tolist() == [list(range(TREE.slots))]
            torch.testing.assert_close(pruned["logits"], whole["logits"], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rows_at_other_places_than_attention_expects_give_other_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control for the test above: the rows of kept slots stand side by side, under the mask of the whole tree."""
    count = TOPOLOGY.first(4).slots

    def side_by_side(self: LikeliestTokens, kept_slots: Node) -> Node:
        return self._numbers("side_by_side", [min(slot, count - 1) for slot in range(TOPOLOGY.slots)])

    whole, pruned = outputs_of("llama", None), outputs_of("llama", Pruning(1, 4))
    assert pruned["kept"].tolist() != [[0, 1, 2, 3]] and max(differences(whole, pruned).values()) < 1e-4
    monkeypatch.setattr(LikeliestTokens, "places", side_by_side)
    assert max(differences(whole, outputs_of("llama", Pruning(1, 4))).values()) > 1e-2


@torch.no_grad()
def test_how_many_tokens_are_kept_does_not_depend_on_the_tokens_and_which_ones_does() -> None:
    graph = built("llama", Pruning(1, 4))
    choices = [run(graph, ids(first), prefilled("llama"), START)["kept"] for first in range(10, 40, 6)]
    assert {choice.shape for choice in choices} == {(1, 4)}
    assert len({tuple(choice[0].tolist()) for choice in choices}) > 1


@torch.no_grad()
@pytest.mark.parametrize("begin", [None, 0, 1, 2])
def test_guesses_may_begin_before_tokens_are_dropped_or_behind(begin: int | None) -> None:
    whole, pruned = outputs_of("llama", None, begin), outputs_of("llama", Pruning(2, 4), begin)
    assert max(differences(whole, pruned).values()) < 1e-4


def test_products_behind_the_first_layers_have_rows_for_what_is_kept_alone() -> None:
    graph, left = built("llama", Pruning(1, 4), begin=2), TOPOLOGY.first(4).slots
    sizes = [node.meta["val"].shape[1] for node in calls(graph, *LINEARS)]
    fixed = [size for size in sizes if isinstance(size, int)]
    parents = len(set(TREE.parents[1:]))
    assert set(fixed) == {parents, left} and fixed.count(parents) == 1  # The early logits are one product.
    assert fixed.count(left) > sizes.index(fixed[0])  # Two layers and the logits, after one layer.


@torch.no_grad()
@pytest.mark.parametrize("taps", [(0,), (2,), (0, 2)])
def test_states_of_trained_heads_have_the_rows_that_are_left(taps: tuple[int, ...]) -> None:
    """Also of states after layers that run on all slots."""
    size, values = model("llama").config.hidden_size, []
    torch.manual_seed(1)
    states = torch.ones(1, 3, len(taps) * size)
    graft = Graft("toy", taps, small(nn.Linear(len(taps) * size, 2), "state", {"taps": 1}, taps=states))
    for pruning in (None, Pruning(2, 4)):
        outputs = ("logits", "state:toy") if pruning is None else ("logits", "state:toy", "kept")
        graph = prepared("llama")
        guesses = GuessSlots("guess", 2, GUESSES, module_of(size))
        block = Block(TOPOLOGY, outputs, pruning=pruning)
        passes.run(passes.pipeline(block, CAPACITY, grafts=[graft], guesses=[guesses]), graph)
        values.append(run(graph, ids(), prefilled("llama"), START))
    whole, pruned = values
    kept_slots = pruned["kept"][0].tolist()
    assert pruned["state_toy"].shape == (1, TOPOLOGY.first(4).slots, 2)
    torch.testing.assert_close(
        pruned["state_toy"][0, : len(kept_slots)], whole["state_toy"][0, kept_slots], atol=1e-4, rtol=1e-4
    )


def test_layers_that_the_model_lacks_are_refused() -> None:
    step = PruneTree(Pruning(2, 4), TOPOLOGY)
    with pytest.raises(PassError, match=r"no pruning after 2 layers; the graph has 2: take 1\.\.1"):
        passes.run([step], small(Layers(), x=hidden_states()))


def test_the_pass_stands_between_guesses_before_it_and_guesses_behind() -> None:
    block = Block(TOPOLOGY, ("ids", "logits", "kept"), pruning=Pruning(2, 4))
    guesses = [GuessSlots("guess", after, 1, module_of(64), first=after, limit=2) for after in (0, 1)]
    steps = [
        step for step in passes.pipeline(block, CAPACITY, guesses=guesses) if isinstance(step, (GuessSlots, PruneTree))
    ]
    assert [type(step) for step in steps] == [GuessSlots, PruneTree, GuessSlots]
    topologies: list[GuessTree | None] = [step.topology for step in steps]
    assert topologies == [TOPOLOGY, TOPOLOGY, TOPOLOGY.first(4)]
    without = passes.pipeline(replace(block, outputs=("ids",), pruning=None), CAPACITY, guesses=guesses)
    assert not any(isinstance(step, PruneTree) for step in without)
