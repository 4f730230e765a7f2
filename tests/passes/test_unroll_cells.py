"""UnrollCells: an LSTM as products of static shape."""

from __future__ import annotations

import pytest
import torch
from small_graphs import small
from torch import Tensor, nn

from specc import passes
from specc.passes.cell_operators import run_cells
from specc.passes.find import CELLS, aten, calls
from specc.passes.unroll_cells import UnrollCells

pytestmark = pytest.mark.torch
SIZE, SLOTS = 6, 7


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Cells(nn.Module):
    """A module of one LSTM layer, whose gates come in."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(random(4 * SIZE, SIZE, seed=3))

    def forward(self, gates: Tensor, start: Tensor, starts: Tensor) -> Tensor:
        out: Tensor = torch.ops.specc.cells(gates, self.weight, start, starts)
        return out


def inputs() -> dict[str, Tensor]:
    starts = torch.tensor([1.0, 0, 0, 1, 0, 0, 1]).view(1, SLOTS, 1)
    return {"gates": random(1, SLOTS, 4 * SIZE), "start": random(1, SLOTS, 2 * SIZE, seed=1), "starts": starts}


def test_the_written_out_cells_say_what_the_operator_says() -> None:
    given_inputs = inputs()
    graph = small(Cells(), "out", None, **given_inputs)
    passes.run([UnrollCells(SLOTS)], graph)
    assert not calls(graph, CELLS) and len(calls(graph, aten.linear.default)) == SLOTS
    truth = run_cells(given_inputs["gates"], Cells().weight, given_inputs["start"], given_inputs["starts"])
    torch.testing.assert_close(graph(*given_inputs.values())["out"], truth)


def test_every_value_of_a_cell_has_a_static_shape() -> None:
    graph = small(Cells(), "out", None, **inputs())
    passes.run([UnrollCells(SLOTS)], graph)
    products = calls(graph, aten.linear.default, aten.sigmoid.default, aten.tanh.default)
    assert all(isinstance(size, int) for node in products for size in node.meta["val"].shape)


def test_a_graph_without_cells_stays_as_it_is() -> None:
    graph = small(nn.Linear(3, 3), "out", input=random(1, SLOTS, 3))
    (record,) = passes.run([UnrollCells(SLOTS)], graph)
    assert record.changed == 0
