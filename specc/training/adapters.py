"""Adapters of low rank (LoRA, Hu et al. 2021, arXiv:2106.09685): they are trained, and then a part of the matrices."""

from __future__ import annotations

import torch
from torch import nn

from specc.huggingface.recursive import RelaxedLinear
from specc.runtime.errors import HeadError


def add_adapters(layers: nn.ModuleList, first: int, rank: int) -> nn.ModuleDict:
    """Give the linear modules of a model's top layers adapters. The model still computes what it did.

    Args:
        layers: the model's layers.
        first: the first layer that gets adapters.
        rank: of the products.

    Returns:
        The adapted modules by their paths. Their products alone need gradients.

    Raises:
        HeadError: these layers have no linear modules.
    """
    adapted = nn.ModuleDict()
    for index in range(first, len(layers)):
        linears = [(name, module) for name, module in layers[index].named_modules() if isinstance(module, nn.Linear)]
        for name, linear in linears:
            module = RelaxedLinear(linear, rank)
            nn.init.kaiming_uniform_(module.down, a=5**0.5)
            module.requires_grad_(False)
            module.down.requires_grad_(True)
            module.up.requires_grad_(True)
            _replace(layers[index], name, module)
            adapted[f"{index}/{name.replace('.', '/')}"] = module
    if not adapted:
        raise HeadError(f"the layers from {first} on have no linear modules to adapt; name another model")
    return adapted


@torch.no_grad()
def merge_adapters(layers: nn.ModuleList) -> None:
    """Add the products of adapters to their matrices, and put plain linear modules back into their places."""
    for layer in layers:
        for name, module in [pair for pair in layer.named_modules() if isinstance(pair[1], RelaxedLinear)]:
            assert isinstance(module, RelaxedLinear)
            rows, columns = module.weight.shape
            linear = nn.Linear(columns, rows, bias=module.bias is not None)
            linear.weight, linear.bias = module.weight, module.bias
            linear.weight += module.up @ module.down
            _replace(layer, name, linear)


def _replace(layer: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module into the place of the one that has a name."""
    parent, _, attribute = name.rpartition(".")
    setattr(layer.get_submodule(parent), attribute, module)
