"""The states of a model: what a head reads, and what its answers are made from."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel

from specc.huggingface.recursive import find_layers
from specc.runtime.errors import HeadError


@contextmanager
def tapped(model: PreTrainedModel, taps: Sequence[int]) -> Iterator[dict[Any, Tensor]]:
    """Collect the states of each call of the model.

    Args:
        model: the model.
        taps: the indexes of the layers after which states are read. -1 is the last layer, before the final norm; the
            number of layers is what the last product reads. Without taps nothing is collected.

    Yields:
        The states of the last call, [B, N, D], by tap; and, as `final`, what the model's last product reads.
    """
    values: dict[Any, Tensor] = {}
    layers = layers_of(model) if taps else nn.ModuleList()

    def keep(tap: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            values[tap] = output[0] if isinstance(output, tuple) else output

        return hook

    def keep_final(module: nn.Module, args: Any, output: Any) -> None:
        values["final"] = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]
        values[len(layers)] = values["final"]

    hooks = []
    if taps:
        check_taps(taps, len(layers))
        backbone: Any = model.base_model
        hooks = [layers[tap].register_forward_hook(keep(tap)) for tap in taps if tap < len(layers)]
        hooks.append(backbone.register_forward_hook(keep_final))
    try:
        yield values
    finally:
        for handle in hooks:
            handle.remove()


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the model's layers, see `find_layers`.

    Raises:
        HeadError: the model has no such list.
    """
    layers = find_layers(model)
    if layers is None:
        count = model.config.get_text_config().num_hidden_layers
        raise HeadError(f"{type(model).__name__} has no list of {count} layers; a head cannot be trained for it")
    return layers


def check_taps(taps: Sequence[int], layers: int) -> None:
    """Check that taps name layers that are there.

    Raises:
        HeadError: a tap is outside the layers, or there is none.
    """
    for tap in taps:
        if not -layers <= tap <= layers:
            raise HeadError(f"the tap {tap} names no layer of {layers}; give -{layers}..{layers}")
    if not taps:
        raise HeadError("there is no tap; name the layers whose states the head reads")


def run_with_cache(model: Any, cache: Any, **inputs: Any) -> Any:
    """Run a model, or its layers, beside keys and values of text that has run. Return what transformers returns.

    Args:
        model: the model of transformers.
        cache: the keys and values. It gets those of the inputs, too.
        inputs: further arguments of the model.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # newer transformers call the cache otherwise
        return model(past_key_values=cache, use_cache=True, **inputs)
