"""Make a recursive draft model of a model (Relaxed Recursive Transformers, Bae et al. 2024, arXiv:2410.20672).

The layers that share a matrix begin with the mean of their own matrices. What each layer adds to it begins as the best
product of its rank: that of the largest singular values of (its own matrix - the mean). So a high rank begins as the
model itself.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor
from transformers import PreTrainedModel

from specc.huggingface.recursive import linears_of, make_recursive
from specc.runtime.errors import CaptureError, HeadError
from specc.training.states import layers_of

SHARE = 16  # The hidden size divided by it is the rank, unless the user gives one.


@torch.no_grad()
def share_layers(model: PreTrainedModel, loops: int, rank: int | None = None) -> PreTrainedModel:
    """Return a recursive copy of a model, which stays as it is.

    Args:
        model: the model.
        loops: how often the copy runs its block of layers.
        rank: of what each layer adds to a shared matrix. None takes a 16th of the hidden size.

    Raises:
        HeadError: the layers cannot be divided into so many loops, or a layer has matrices that cannot be shared.
    """
    draft = copy.deepcopy(model)
    rank = max(1, model.config.get_text_config().hidden_size // SHARE) if rank is None else rank
    try:
        make_recursive(draft, loops, rank)
        originals = [linears_of(layer) for layer in layers_of(model)]
    except CaptureError as e:
        raise HeadError(str(e)) from e
    block = len(originals) // loops
    for place in range(block):
        for name in originals[place]:
            matrices = torch.stack([originals[index][name].weight for index in range(place, len(originals), block)])
            mean = matrices.mean(0)
            for loop, matrix in enumerate(matrices):
                relaxed = layers_of(draft)[place + loop * block].get_submodule(name)
                up, down = best_product(matrix - mean, rank)
                for parameter, value in (("weight", mean), ("up", up), ("down", down)):
                    relaxed.get_parameter(parameter).copy_(value)
    return draft


def best_product(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return the factors [R, rank] and [rank, C] of the product that is nearest to a matrix [R, C].

    Each has the root of the singular values, so that both learn equally fast.
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    roots = values[:rank].sqrt()
    return left[:, :rank] * roots, roots[:, None] * right[:rank]
