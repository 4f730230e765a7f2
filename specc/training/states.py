"""The states of a model: what a head reads, and what its answers are made from.

B  sequences      N  tokens      T  taps      D  the model's hidden size
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from specc.runtime.errors import HeadError

FIRST = torch.zeros(1, dtype=torch.long)  # logits of the first slot, which nobody reads
SLICE = 4096  # tokens, padding included, that are read at once


@torch.inference_mode()
def read_states(
    model: PreTrainedModel, sequences: Sequence[Sequence[int]], taps: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the states of each sequence.

    Args:
        model: the model, in the type in which it shall compute.
        sequences: tokens.
        taps: the indexes of the layers after which states are read. -1 is the last layer, before the final norm; the
            number of layers is what the last product reads.

    Yields:
        [N, T * D]: the taps' states side by side; and [N, D]: what the model's last product reads. Both in bf16.
    """
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    results: dict[int, tuple[Tensor, Tensor]] = {}
    with _hooked(model, taps) as values:
        while order:
            longest = len(sequences[order[-1]])
            group = [order.pop() for _ in range(min(len(order), max(1, SLICE // longest)))]
            tokens = torch.zeros(len(group), longest, dtype=torch.long)
            for row, index in enumerate(group):
                tokens[row, : len(sequences[index])] = torch.tensor(sequences[index])
            model(input_ids=tokens, use_cache=False, logits_to_keep=FIRST)
            states, final = torch.cat([values[tap] for tap in taps], -1).bfloat16(), values["final"].bfloat16()
            for row, index in enumerate(group):
                count = len(sequences[index])
                results[index] = states[row, :count].clone(), final[row, :count].clone()
    yield from (results[index] for index in range(len(sequences)))


def layers_of(model: PreTrainedModel) -> nn.ModuleList:
    """Return the model's layers: the list of modules that is as long as its configuration says.

    Raises:
        HeadError: there is no such list.
    """
    count = model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise HeadError(f"{type(model).__name__} has no list of {count} layers; a head cannot be trained for it")


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


@contextmanager
def _hooked(model: PreTrainedModel, taps: Sequence[int]) -> Iterator[dict[Any, Tensor]]:
    """Collect the states of each call of the model: by tap, and the last product's input as `final`."""
    values: dict[Any, Tensor] = {}
    layers = layers_of(model)
    check_taps(taps, len(layers))

    def keep(tap: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            values[tap] = output[0] if isinstance(output, tuple) else output

        return hook

    backbone: Any = model.base_model

    def keep_final(module: nn.Module, args: Any, output: Any) -> None:
        values["final"] = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]
        values[len(layers)] = values["final"]

    hooks = [layers[tap].register_forward_hook(keep(tap)) for tap in taps if tap < len(layers)]
    hooks.append(backbone.register_forward_hook(keep_final))
    try:
        yield values
    finally:
        for handle in hooks:
            handle.remove()
