"""The logits of a draft model at several exits: after some of its layers, by its own last norm and last product.

They are what an engine computes that ends after these layers (`specc.passes.exit_after`). One run gives all of them.

E  exits      B  sequences      N  tokens of a sequence      M  rows      V  tokens
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from specc.training.guess_slots import at_layer
from specc.training.states import layers_of, tapped


def exit_logits(draft: PreTrainedModel, tokens: Tensor, rows: Tensor, exits: Sequence[int]) -> Tensor:
    """Return the logits [E, M, V] of a draft model in some rows.

    Args:
        draft: the draft model.
        tokens: [B, N] int64.
        rows: [B, N] bool: the rows that are wanted, M of them.
        exits: the number of layers before each exit.
    """
    last = len(layers_of(draft)) - 1
    with tapped(draft, [count - 1 for count in exits]) as states:

        def leave(_: Tensor) -> Tensor:
            """Return the wanted rows of all exits in place of the last states, in sequences that are as long."""
            states_of_rows = torch.cat([states[count - 1][rows] for count in exits])
            missing = -len(states_of_rows) % tokens.shape[1]
            sequences = functional.pad(states_of_rows, (0, 0, 0, missing))
            return sequences.view(-1, tokens.shape[1], sequences.shape[-1])

        with at_layer(draft, last, leave):
            logits: Tensor = draft(input_ids=tokens, use_cache=False).logits.flatten(0, 1)
    count = int(rows.sum())
    return logits[: len(exits) * count].reshape(len(exits), count, -1)


def parameters_read(draft: PreTrainedModel, exit_after: int) -> int:
    """Return how many numbers a draft model reads for a token, if it ends after so many layers.

    Numbers that several layers share are read by each.
    """
    layers = layers_of(draft)
    in_layers = set(layers.parameters())
    others = sum(parameter.numel() for parameter in draft.parameters() if parameter not in in_layers)
    return others + sum(parameter.numel() for layer in layers[:exit_after] for parameter in layer.parameters())
