"""A head for the model without its middle layers (S3D, Zhong & Bharadwaj 2024, arXiv:2405.20314).

The model's first and last layers run on the pending token and on mask tokens behind it. So one run guesses the next
token and those after it. What is trained is the embedding of the mask token, and a small MLP in the place of the layers
that are left out.

The paper trains layers of the model for this. Here the model stays as it is, so that it verifies what it would say
without the head. The MLP takes over what training changes in the layers.

B  sequences, one in an engine      N  slots      d  the model's hidden size
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from specc.heads.guess_slots import PromptTokens
from specc.heads.head import HeadConfig, linear, rms_norm, setting
from specc.runtime.block import Layers
from specc.runtime.errors import HeadError


class S3D(PromptTokens):
    """A head of a mask token and of an MLP in the place of the middle layers.

    Args:
        config: its settings are those of `PromptTokens`, `first_skipped` and `skipped` (the first layer that is left
            out, and how many are), `mlp_size` and `eps`.

    Attributes:
        skipped: the layers that are left out.

    Raises:
        HeadError: a skipped layer is not between two layers of the model, or behind the first one.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        first, count = int(setting(config, "first_skipped")), int(setting(config, "skipped"))
        layers = config.target.layers
        if not (first >= 1 and 1 <= count <= layers - first):
            raise HeadError(
                f"the head's config.json skips {count} layers from layer {first} on, and the model has layers "
                f"0..{layers - 1}; train the head again for a model of 2 layers or more"
            )
        self.skipped, self.bridge_taps = tuple(range(first, first + count)), (first - 1,)
        self.eps, size = setting(config, "eps"), config.target.hidden_size
        mlp_size = int(setting(config, "mlp_size"))
        self.down, self.up = linear(size, mlp_size), linear(mlp_size, size)

    @property
    def draft_layers(self) -> Layers:
        return Layers(skip_attention=self.skipped, skip_mlp=self.skipped, bridge=self.architecture)

    def step_slots(self, drafted: int) -> int:
        return 1 + drafted

    def draft_cost(self, drafted: int, parameters: int) -> float:
        """See `Head`: one run drafts all tokens, by the layers that are left."""
        return 1 - len(self.skipped) / self.config.target.layers

    def bridge(self, states: Tensor) -> Tensor:
        out: Tensor = states + self.up(functional.silu(self.down(rms_norm(states, None, self.eps))))
        return out

    @torch.no_grad()
    def begin(self, states: Tensor) -> None:
        """Start near the mean of embeddings, and with an MLP that adds nothing."""
        super().begin(states)
        self.up.weight.zero_()
