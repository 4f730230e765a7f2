"""Start attention of a head from a layer of the model: keys and values are the layer's, the rest is fitted.

A query is fitted by least squares to the model's own query of the same token. The output is fitted to what is then left
to guess of the model's last state. So a head begins to look where the layer looks, without an update.

n  tokens of a text      d  hidden size      H  heads      C  size of a head
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from specc.heads.head import rms_norm
from specc.heads.layer import Layer, rotate
from specc.training.closed_form import Squares
from specc.training.shards import Recording
from specc.training.states import layers_of

ROWS = 20_000  # tokens of text that are enough
PRODUCTS = {"query": "q_proj", "key": "k_proj", "value": "v_proj"}
NORM = "norm"  # of what the products read


@torch.no_grad()
def layer_weights(model: PreTrainedModel, index: int) -> dict[str, Tensor]:
    """Copy the weights of a layer's attention, in fp32, by the names `query.weight` and so on, and `norm` [d].

    A layer whose products have other names than Llama's gives none of them.
    """
    layer = layers_of(model)[index]
    modules = dict(layer.named_modules())
    weights = {
        f"{ours}.{name}": parameter.detach().to(torch.float32, copy=True)
        for ours, theirs in PRODUCTS.items()
        for name, parameter in modules.get(f"self_attn.{theirs}", nn.Identity()).named_parameters()
    }
    norm = modules.get("input_layernorm")
    if norm is not None:
        # However a model writes its norm, that of large numbers of equal size is the weight, with their signs.
        signs = torch.ones(model.config.get_text_config().hidden_size, dtype=next(norm.parameters()).dtype)
        signs[1::2] = -1
        weights[NORM] = ((norm(1000 * signs) - norm(torch.zeros_like(signs))) * signs).float()
    return weights


def some(recordings: Sequence[Recording]) -> list[Recording]:
    """Return recordings from the start that have ROWS tokens together, or all."""
    result: list[Recording] = []
    for recording in recordings:
        if sum(map(len, result)) > ROWS:
            break
        result.append(recording)
    return result


def copy_products(layer: nn.Module, weights: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Give a layer the products of these names. Those of another shape stay as they are."""
    for name, parameter in layer.named_parameters():
        if name.split(".")[0] in names and name in weights and weights[name].shape == parameter.shape:
            parameter.data.copy_(weights[name])


def has_query(weights: Mapping[str, Tensor]) -> bool:
    """Tell whether `queries_of` can be called."""
    return "query.weight" in weights and NORM in weights


def queries_of(layer: Layer, weights: Mapping[str, Tensor], states: Tensor, later: int) -> Tensor:
    """Return the model's queries of tokens, [n, H * C], for a head that has each token at another position.

    Args:
        layer: of the head, which turns queries by their positions.
        weights: those of `layer_weights`.
        states: [n, d]: what enters the model's layer.
        later: how many positions later a token stands in the model than in the head.
    """
    read = rms_norm(states, weights[NORM], layer.eps)
    heads = functional.linear(read, weights["query.weight"], weights.get("query.bias"))
    turned = torch.unflatten(heads, -1, (-1, layer.head_size))[None].transpose(1, 2)
    angles = layer.angles(torch.full((1, len(states)), later))
    return rotate(turned, *angles).transpose(1, 2).flatten(2)[0]


def least_squares(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor:
    """Return the weight [outputs, inputs] of the product that maps rows [n, inputs] to rows [n, outputs] best."""
    squares = Squares(inputs[0].shape[1], outputs[0].shape[1])
    for x, y in zip(inputs, outputs, strict=True):
        squares.add(x, y)
    return squares.solve().T
