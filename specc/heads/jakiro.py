"""EAGLE's layer with two experts in the place of its MLP (Jakiro, Huang et al. 2025, arXiv:2502.06282).

Both experts always run. A gate says for each slot which of them is the first. The likeliest token is that of the first
expert, and its siblings are those of the other one. So siblings do not come from one state. A second pair of the gate's
weights takes the difference of both experts. It guesses the token one place further, so the last call of a draft makes
two levels.

It departs from the paper in these points:

1. Each expert makes logits of its own at all steps. The authors' code adds both up at the steps before the last.
2. The guess of the last step is one, and not one for each of the two branches.
3. The other expert learns what the text has if the first expert's token is wrong (specc/training/jakiro.py).

B  sequences, one in an engine      N  slots      d  the model's hidden size
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, parts, rms_norm, setting
from specc.heads.pair_head import PairHead


class Expert(nn.Module):
    """A gated MLP.

    Args:
        size: numbers of a state, d.
        width: numbers between its products.
    """

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.gate, self.up, self.down = linear(size, width), linear(size, width), linear(width, size)

    def forward(self, y: Tensor) -> Tensor:
        """Return what the expert adds to the residual stream, [B, N, d], from its norm."""
        out: Tensor = self.down(functional.silu(self.gate(y)) * self.up(y))
        return out


class Jakiro(PairHead):
    """A recurrent head whose state of a slot has two parts: what the first child reads, and what the others read.

    Args:
        config: its settings are those of `Eagle`, of which `mlp_size` is 0, and `expert_size`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        width = int(setting(config, "expert_size"))
        self.expert_norm = nn.Parameter(torch.ones(self.size))
        self.gate = linear(self.size, 4)
        self.one, self.two = Expert(self.size, width), Expert(self.size, width)

    def draft_cost(self, drafted: int, parameters: int) -> float:
        """See `Head`: the last call makes two tokens."""
        return super().draft_cost(max(1, drafted - 1), parameters)

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        x = self.run_layers(input_ids, position_ids, state, [layer.attend for layer in self.decoder_layers()])
        first, other, ahead = self.features(x)
        # One product makes all logits, so that a pass can keep one row before it.
        logits = self.logits(torch.stack([first, other, ahead], -2))
        return {"logits": logits, "state": torch.cat([self.next_state(first), self.next_state(other)], -1)}

    def features(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what makes the logits of the first token, of its siblings, and of the token one place further.

        Args:
            x: [B, N, d]: the residual stream behind attention.

        Returns:
            Three of [B, N, d].
        """
        y = rms_norm(x, self.expert_norm, self.eps)
        one, two = self.one(y), self.two(y)
        now, later = parts(self.gate(y), 2)
        first, other = _ordered(now, one, two)
        stronger, weaker = _ordered(later, one, two)
        return x + first, x + other, x + stronger - weaker


def _ordered(gate: Tensor, one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the expert gives that the gate prefers, and what the other one gives, both by their weights.

    Args:
        gate: [B, N, 2].
        one: [B, N, d]: the output of the first expert.
        two: [B, N, d]: that of the second one.
    """
    weight_one, weight_two = parts(gate.softmax(-1), 2)
    prefers_one = weight_one >= weight_two
    one, two = weight_one * one, weight_two * two
    return torch.where(prefers_one, one, two), torch.where(prefers_one, two, one)
