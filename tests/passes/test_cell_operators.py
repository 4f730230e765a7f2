"""The operator of a recurrent cell: torch's own LSTM, from any start."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from specc.passes.cell_operators import run_cells

pytestmark = pytest.mark.torch
SIZE, SLOTS = 6, 5


@torch.no_grad()
@pytest.mark.parametrize("fresh", [0, 2])
def test_the_cells_are_those_of_torchs_lstm_from_where_they_start(fresh: int) -> None:
    """From the slot that starts anew, the outputs are those of an LSTM that begins there."""
    torch.manual_seed(fresh)
    lstm, x, start = nn.LSTM(4, SIZE, batch_first=True), torch.randn(2, SLOTS, 4), torch.randn(2, SLOTS, 2 * SIZE)
    enter, weight, *biases = (
        lstm.get_parameter(f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    gates = functional.linear(x, enter, biases[0] + biases[1])
    starts = torch.zeros(2, SLOTS, 1)
    starts[:, fresh] = 1
    rows = run_cells(gates, weight, start, starts)
    output, cell = (part[None].contiguous() for part in start[:, fresh].split(SIZE, -1))
    truth, (_, last) = lstm(x[:, fresh:], (output, cell))
    torch.testing.assert_close(rows[:, fresh:, :SIZE], truth)
    torch.testing.assert_close(rows[:, -1, SIZE : 2 * SIZE], last[0])
    torch.testing.assert_close(rows[:, fresh + 1 :, 2 * SIZE :], truth[:, :-1])
    torch.testing.assert_close(rows[:, fresh, 2 * SIZE :], output[0])


def test_the_first_slot_starts_from_zeros_if_from_nothing_else() -> None:
    gates, weight = torch.randn(1, 2, 4 * SIZE), torch.randn(4 * SIZE, SIZE)
    starts = torch.zeros(1, 2, 1)
    rows = [run_cells(gates, weight, start, starts) for start in torch.randn(2, 1, 2, 2 * SIZE)]
    torch.testing.assert_close(*rows)
    assert not rows[0][:, 0, 2 * SIZE :].any()
