"""BoundPositions: no slot reads behind a table that has a row for each position."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from families import POSITIONS
from graphs import EIGHT, SLOTS, captured, tokens
from small_graphs import graph_text, rewrite, small
from torch import Tensor, nn

from specc import passes
from specc.passes.bound_positions import BoundPositions
from specc.passes.drop_asserts import DropAsserts

pytestmark = pytest.mark.torch

BY_TABLE = ("opt", "gpt2", "codegen")


class Positions(nn.Module):
    """Embeddings of tokens and of positions, which are shifted by two as in some models."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(9, 4), nn.Embedding(rows, 4)

    def forward(self, input_ids: Tensor, position_ids: Tensor) -> Tensor:
        return self.words(input_ids) + self.places(position_ids + 2)  # type: ignore[no-any-return]


def embeddings(rows: int) -> torch.fx.GraphModule:
    return small(Positions(rows), input_ids=torch.zeros(1, 3, dtype=torch.long), position_ids=torch.arange(3)[None])


def test_the_index_of_a_table_that_is_too_short_is_clamped() -> None:
    graph = embeddings(rows=6)
    assert_expected_inline(
        rewrite(graph, BoundPositions(5)),
        """\
inputs input_ids, position_ids
embedding_1 = embedding(self.words.weight, input_ids)
add_1 = add(position_ids, 2)
embedding_2 = embedding(self.places.weight, add_1)
add_2 = add(embedding_1, embedding_2)
return {logits: add_2}
--> BoundPositions(positions=5) changed 1
inputs input_ids, position_ids
embedding_1 = embedding(self.words.weight, input_ids)
add_1 = add(position_ids, 2)
clamp_1 = clamp(add_1, None, 5)
embedding_2 = embedding(self.places.weight, clamp_1)
add_2 = add(embedding_1, embedding_2)
return {logits: add_2}""",
    )
    ids = torch.tensor([[1, 2, 8]])
    far, last = (graph(ids, torch.tensor([[0, 3, p]]))["logits"] for p in (70, 3))
    assert torch.equal(far, last)
    assert not torch.equal(last[:, 1], graph(ids, torch.tensor([[0, 2, 3]]))["logits"][:, 1])


def test_a_table_that_is_long_enough_stays() -> None:
    graph = embeddings(rows=7)
    before = graph_text(graph)
    assert BoundPositions(5)(graph) == 0 and graph_text(graph) == before
    assert BoundPositions(6)(graph) == 1


class Angles(nn.Module):
    """Angles that are read from a table by indexing."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(12.0).reshape(6, 2))

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        return x + self.table[position_ids]


def test_a_table_that_is_indexed_is_bounded_too() -> None:
    graph = small(Angles(), x=torch.zeros(1, 3, 2), position_ids=torch.arange(3)[None])
    assert_expected_inline(
        rewrite(graph, BoundPositions(7)),
        """\
inputs x, position_ids
index_1 = index(self.table, [position_ids])
add_1 = add(x, index_1)
return {logits: add_1}
--> BoundPositions(positions=7) changed 1
inputs x, position_ids
clamp_1 = clamp(position_ids, None, 5)
index_1 = index(self.table, [clamp_1])
add_1 = add(x, index_1)
return {logits: add_1}""",
    )
    assert graph(torch.zeros(1, 3, 2), torch.tensor([[4, 5, 70]]))["logits"][0, :, 0].tolist() == [8, 10, 10]
    assert BoundPositions(6)(small(Angles(), x=torch.zeros(1, 3, 2), position_ids=torch.arange(3)[None])) == 0


def test_a_table_that_is_read_by_two_indices_stays() -> None:
    class Cells(Angles):
        def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
            return x + self.table[position_ids, position_ids]

    graph = small(Cells(), x=torch.zeros(1, 2), position_ids=torch.zeros(1, 2, dtype=torch.long))
    assert BoundPositions(9)(graph) == 0


@pytest.mark.parametrize("family", EIGHT)
def test_a_slot_beyond_the_last_position_runs(family: str) -> None:
    """Without the pass it does not, where a table has a row for each position."""
    late = tokens(), POSITIONS + torch.arange(SLOTS)[None]
    graph = captured(family)
    passes.run([DropAsserts()], graph)
    if family in BY_TABLE:
        with pytest.raises(IndexError):
            graph(*late)
    passes.run([BoundPositions(POSITIONS + 16)], graph)
    assert graph(*late)["logits"].isfinite().all()
