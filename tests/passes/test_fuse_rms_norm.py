"""RMSNorm however a model writes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from specc.passes.find import calls
from specc.passes.fuse_rms_norm import FuseRMSNorm

pytestmark = pytest.mark.torch


class Written(nn.Module):
    """weight * (x / rms(x)), by a function of x and the weight."""

    def __init__(self, norm: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.norm, self.weight = norm, nn.Parameter(1 + torch.arange(8.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x, self.weight)


def power(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5))


def product(x: Tensor, weight: Tensor) -> Tensor:
    return (torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5) * x) * weight


def used_twice(x: Tensor, weight: Tensor) -> Tensor:
    normed = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)
    return weight * normed + normed


def weightless(x: Tensor, weight: Tensor) -> Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) - weight


def torchs(x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.rms_norm(x, (8,), weight, 1e-5)


def of_torchs_own_eps(x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.rms_norm(x, (8,), weight)


def over_two_axes(x: Tensor, weight: Tensor) -> Tensor:
    return nn.functional.rms_norm(x, (3, 8)) * weight


def cubed(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * torch.rsqrt(x.pow(3).abs().mean(-1, keepdim=True) + 1e-5))


def graph(norm: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> GraphModule:
    made = torch.export.export(Written(norm), (x,)).module()
    assert isinstance(made, GraphModule)
    return made


@pytest.mark.parametrize("norm", [power, product, used_twice, weightless, torchs, of_torchs_own_eps])
@torch.no_grad()
def test_it_becomes_one_node_of_the_same_value(norm: Callable[[Tensor, Tensor], Tensor]) -> None:
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    made = graph(norm, x)
    assert FuseRMSNorm()(made) == 1
    assert len(calls(made, torch.ops.specc.rms_norm.default)) == 1
    made.recompile()
    torch.testing.assert_close(made(x), norm(x, 1 + torch.arange(8.0)))


@pytest.mark.parametrize("norm", [over_two_axes, cubed])
def test_what_is_none_stays(norm: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert FuseRMSNorm()(graph(norm, torch.randn(2, 3, 8))) == 0
