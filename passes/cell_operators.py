"""The operator of a recurrent cell that runs from slot to slot, with its meaning in torch.

N  slots      d  numbers of the cell's output
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def run_cells(gates: Tensor, weight: Tensor, start: Tensor, starts: Tensor) -> Tensor:
    """Run an LSTM from slot to slot (Hochreiter & Schmidhuber 1997; the gates stand in torch's order).

    Args:
        gates: [B, N, 4 d] float: what the input and the biases add to the gates.
        weight: [4 d, d] float: the product of the output before a slot.
        start: [B, N, 2 d] float: an output and a cell side by side, from which a slot may start.
        starts: [B, N, 1] float: 1 where a slot starts from `start`, 0 where it goes on from the slot before it. Slot 0
            goes on from zeros.

    Returns:
        [B, N, 3 d]: the output behind each slot, the cell behind it, and the output before it.
    """
    size = weight.shape[1]
    last = torch.zeros_like(start[:, 0])
    rows = []
    for gate, begin, begins in zip(gates.unbind(1), start.unbind(1), starts.unbind(1), strict=True):
        output, cell = torch.split(last + begins * (begin - last), size, -1)
        enter, keep, new, leave = torch.split(gate + functional.linear(output, weight), size, -1)
        cell = torch.sigmoid(keep) * cell + torch.sigmoid(enter) * torch.tanh(new)
        last = torch.cat([torch.sigmoid(leave) * torch.tanh(cell), cell], -1)
        rows.append(torch.cat([last, output], -1))
    return torch.stack(rows, 1)


@torch.library.custom_op("specc::cells", mutates_args=())
def cells(gates: Tensor, weight: Tensor, start: Tensor, starts: Tensor) -> Tensor:
    """Run an LSTM from slot to slot of one sequence. The arguments are those of `run_cells`, with B = 1."""
    return run_cells(gates, weight, start, starts)


@cells.register_fake
def _(gates: Tensor, weight: Tensor, start: Tensor, starts: Tensor) -> Tensor:
    return gates.new_empty(*gates.shape[:-1], 3 * weight.shape[1])
