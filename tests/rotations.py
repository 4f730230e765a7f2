"""Rotations of heads as models write them, for tests of the pass that fuses them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

SIZE = 6
Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]


def halves(x: Tensor) -> Tensor:
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return torch.cat([-b, a], -1)


def neighbours(x: Tensor) -> Tensor:
    return torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)


class Rotary(nn.Module):
    """A head's rotation by the angles of positions, by a function of x, cos and sin."""

    frequencies: Tensor

    def __init__(self, rotate: Rotate, interleaved: bool = False, size: int = SIZE) -> None:
        super().__init__()
        self.rotate, self.interleaved = rotate, interleaved
        self.register_buffer("frequencies", 0.3 ** torch.arange(size // 2))

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        angles = position_ids[:, None, :, None] * self.frequencies
        angles = angles.repeat_interleave(2, -1) if self.interleaved else torch.cat([angles, angles], -1)
        return self.rotate(x, angles.cos(), angles.sin())


def by_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + halves(x) * sin


def by_neighbours(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + neighbours(x) * sin


def turned_around(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return sin * halves(x) + cos * x


def partial(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.cat([by_halves(x[..., :SIZE], cos, sin), x[..., SIZE:]], -1)


def overlapping(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The sizes behind are not those that follow the ones that turn."""
    return torch.cat([by_halves(x[..., :SIZE], cos, sin), x[..., SIZE - 1 :]], -1)


def whole_and_more(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return torch.cat([by_halves(x, cos, sin), x[..., :2]], -1)


def stacked(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The two parts of a head as two values, not side by side."""
    return torch.stack([by_halves(x[..., :SIZE], cos, sin), x[..., SIZE:]])


def in_three_parts(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The sizes behind are two slices, not one."""
    return torch.cat([by_halves(x[..., :SIZE], cos, sin), x[..., SIZE : SIZE + 1], x[..., SIZE + 1 :]], -1)


def by_a_swap_that_names_the_heads(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + halves(x).reshape(1, 2, -1, SIZE) * sin
