"""Recursive models: one block of layers runs several times, and each time it adds products of low rank of its own.

Relaxed Recursive Transformers (Bae et al. 2024, arXiv:2410.20672). A model of L layers in K loops has the matrices of
L / K layers. Layer l has those of layer l mod (L / K), and adds a product of its own to each:

    y = x W^T + (x A^T) B^T + b      W [out, in] is shared; A [rank, in] and B [out, rank] are the layer's own

Norms and biases, which have few numbers, are each layer's own, too. The paper shares them.

Such a model is a model of transformers with other linear modules. Its directory has an ordinary config.json with one
more entry, and the weights in a file of another name, which transformers does not take for its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from specc.huggingface.tied import first_names
from specc.runtime.errors import CaptureError, first_line

ENTRY = "relaxed_recursive"  # of config.json: {"loops": K, "rank": the rank}
FILE = "recursive.safetensors"


class RelaxedLinear(nn.Module):
    """A linear module whose matrix other layers share, with a product of low rank of its own.

    Args:
        linear: its matrix and its bias.
        rank: of the product, which starts at zero. A matrix with a smaller side has that side as the rank.
    """

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        rank = min(rank, *self.weight.shape)
        self.down = nn.Parameter(self.weight.new_zeros(rank, linear.in_features))
        self.up = nn.Parameter(self.weight.new_zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        own = functional.linear(functional.linear(x, self.down), self.up)
        return functional.linear(x, self.weight, self.bias) + own


def loops_of(model: PreTrainedModel) -> int:
    """Return how often a model runs its block of layers: 1 for an ordinary model."""
    return int(getattr(model.config, ENTRY, {"loops": 1})["loops"])


def find_layers(model: PreTrainedModel) -> nn.ModuleList | None:
    """Return the model's layers: the list of modules that is as long as its configuration says. None if it has none."""
    count = model.config.get_text_config().num_hidden_layers
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count)
    return next(lists, None)


def linears_of(layer: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear modules of a layer by their paths.

    Raises:
        CaptureError: a matrix of the layer is no linear module's, so that layers cannot share it.
    """
    linears = {name: module for name, module in layer.named_modules() if isinstance(module, nn.Linear)}
    for name, parameter in layer.named_parameters():
        if parameter.ndim > 1 and name.removesuffix(".weight") not in linears:
            raise CaptureError(f"layers cannot share {name}, which is no linear module; name another model")
    return linears


def make_recursive(model: PreTrainedModel, loops: int, rank: int) -> None:
    """Let the layers of a model share the matrices of its first ones, and note it in the configuration.

    Args:
        model: the model, which is changed.
        loops: K.
        rank: of what each layer adds to a shared matrix. It starts at zero.

    Raises:
        CaptureError: the layers cannot be divided into so many loops, or have matrices that cannot be shared.
    """
    layers = find_layers(model) or nn.ModuleList()
    possible = divisors(len(layers))
    if loops not in possible:
        remedy = f"give one of {', '.join(map(str, possible))}" if possible else "name a model of more layers"
        raise CaptureError(f"{len(layers)} layers cannot run in {loops} loops; {remedy}")
    if rank < 1:
        raise CaptureError(f"the rank is {rank}; give 1 or more")
    block = len(layers) // loops
    for index, layer in enumerate(layers):
        linears = linears_of(layer)
        for name, linear in linears.items():
            relaxed = RelaxedLinear(linear, rank)
            if index >= block:
                shared = layers[index % block].get_submodule(name)
                assert isinstance(shared, RelaxedLinear)
                relaxed.weight = shared.weight
            parent, _, attribute = name.rpartition(".")
            setattr(layer.get_submodule(parent), attribute, relaxed)
    setattr(model.config, ENTRY, {"loops": loops, "rank": rank})


def divisors(layers: int) -> list[int]:
    """Return the numbers of loops in which so many layers can run, 2 or more."""
    return [loops for loops in range(2, layers + 1) if layers % loops == 0]


def save_recursive(model: PreTrainedModel, directory: Path) -> None:
    """Write a recursive model's configuration and weights. Each tensor is stored once.

    Raises:
        OSError, SafetensorError: the disk is full, or the directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(directory)
    if model.generation_config is not None:
        model.generation_config.save_pretrained(directory)
    state = model.state_dict()
    names = first_names(state)
    save_file({name: tensor.contiguous() for name, tensor in state.items() if names[name] == name}, directory / FILE)


def load_recursive(directory: Path, source: str, config: Any) -> PreTrainedModel:
    """Load a recursive model in fp32.

    Args:
        directory: what `save_recursive` wrote.
        source: what the user named, for messages.
        config: its configuration, with the entry `relaxed_recursive`.

    Raises:
        CaptureError: there is no such directory, the entry is malformed, or the weights cannot be read or are of
            another shape.
    """
    if not directory.is_dir():
        raise CaptureError(f"{source} is a recursive model on the hub; download it, and name its directory")
    entry = getattr(config, ENTRY)
    if not isinstance(entry, dict) or not all(type(entry.get(key)) is int for key in ("loops", "rank")):
        raise CaptureError(f"{source}: {ENTRY} in config.json is {entry!r}; expected whole numbers loops and rank")
    untyped: Any = AutoModelForCausalLM
    try:
        model: PreTrainedModel = untyped.from_config(config, dtype=torch.float32, attn_implementation="eager")
    except Exception as e:  # classes of transformers raise what they like
        raise CaptureError(f"{source} cannot be built from its config.json ({first_line(e)}); train it again") from e
    try:
        make_recursive(model, entry["loops"], entry["rank"])
    except CaptureError as e:
        raise CaptureError(f"{source}: {e}; or train it again") from e
    try:
        tensors = load_file(directory / FILE)
    except (OSError, SafetensorError) as e:
        raise CaptureError(f"{source} has no {FILE} that can be read ({first_line(e)}); train it again") from e
    state = model.state_dict()
    names = first_names(state)
    stored = {name: tensor for name, tensor in state.items() if names[name] == name}
    for name in sorted(stored.keys() ^ tensors.keys()):
        where = f"{FILE} lacks" if name in stored else f"{FILE} has a tensor too many,"
        raise CaptureError(f"{source}: {where} {name}; train it again")
    with torch.no_grad():
        for name, tensor in stored.items():
            if tensor.shape != tensors[name].shape:
                shapes = f"{list(tensors[name].shape)}, and config.json asks for {list(tensor.shape)}"
                raise CaptureError(f"{source}: {name} in {FILE} has the shape {shapes}; train it again")
            tensor.copy_(tensors[name])
    if (directory / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(str(directory))
    return model
