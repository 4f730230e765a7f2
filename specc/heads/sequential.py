"""The base class of heads that draft one token a call, each from a state that holds the drafted tokens before it.

All begin with one linear guess of the state that the model's last product will read next, and correct it. The guess is
that of EAGLE-3's head here (specc/heads/eagle3.py): products of the last state and of the token, which start from a
closed form. The correction starts at zero. The papers have the correction alone; the guess lets it learn from little
text.

B  sequences      N  slots      T  taps      d  hidden size      m  numbers of the memory      V'  tokens that it knows
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import Head, HeadConfig, linear, option, rms_norm, setting
from specc.heads.layer import Attend, Layer


class Sequential(Head):
    """A recurrent head whose state is the last guess, and a memory of what was drafted. The memory begins with zeros.

    Args:
        config: its settings are `eps` and, with `layers` (0), those of `Layer`. These decoder layers read the model's
            states, and all of their past. Drafts do not run them.
        memory: the numbers of each part of the memory, m together.
    """

    recurrent = True

    def __init__(self, config: HeadConfig, memory: tuple[int, ...] = ()) -> None:
        super().__init__(config)
        size = config.target.hidden_size
        self.parts_of_state, self.eps = [size, *memory], setting(config, "eps")
        self.context_layers = int(option(config, "layers", 0))
        self.attends = self.context_layers > 0
        self.fc = linear(len(config.taps) * size, size)
        self.token = linear(size, size)
        self.own = linear(size, size)
        self.layers = nn.ModuleList(Layer(config, index, wide=False) for index in range(self.context_layers))
        self.norm = nn.Parameter(torch.ones(size))
        self.head = linear(size, config.draft_vocab_size)

    @property
    def state_size(self) -> int:
        """See `Head`: the guess and the memory."""
        return sum(self.parts_of_state)

    @abstractmethod
    def correct(self, x: Tensor, token: Tensor, last: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Correct the linear guess.

        Args:
            x: [B, N, d]: the guess.
            token: [B, N, d]: the normed embeddings.
            last: [B, N, d]: the part of the state that is no memory.
            memory: its parts.

        Returns:
            The guess, corrected, and the parts of the memory for the next slot.
        """

    @abstractmethod
    def added(self) -> list[nn.Parameter]:
        """Return the weights that start at zero, so that a fresh head makes the linear guess."""

    def fuse(self, taps: Tensor) -> Tensor:
        states = rms_norm(torch.unflatten(taps, -1, (len(self.taps), -1)), None, self.eps)
        state = self.fc(states.flatten(-2))
        return functional.pad(state, (0, self.state_size - state.shape[-1])) if len(self.parts_of_state) > 1 else state

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        state = self.run_layers(position_ids, state, [layer.attend for layer in self.decoder_layers()])
        x, state = self.step(input_ids, state)
        return {"logits": self.logits(x), "state": state}

    def run_layers(self, position_ids: Tensor, state: Tensor, attention: list[Attend]) -> Tensor:
        """Return the states [B, N, d + m] behind the decoder layers.

        Args:
            position_ids: see `forward`.
            state: see `forward`.
            attention: that of each layer.
        """
        x, *memory = torch.split(state, self.parts_of_state, -1)
        for layer, attend in zip(self.decoder_layers(), attention, strict=True):
            x = layer(x, x, position_ids, attend)
        return torch.cat([x, *memory], -1) if attention else state

    def step(self, input_ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Draft a token. Return what `logits` reads, [B, N, d], and the state [B, N, d + m] for the next slot."""
        assert self.embedding is not None, "no table was attached"
        token = rms_norm(functional.embedding(input_ids, self.embedding), None, self.eps)
        last, *memory = torch.split(state, self.parts_of_state, -1)
        x, memory = self.correct(last + self.token(token), token, last, memory)
        return x, torch.cat([self.own(rms_norm(x, None, self.eps)), *memory], -1)

    def decoder_layers(self) -> list[Layer]:
        """Return the layers that the model's tokens run."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [B, N, V']."""
        out: Tensor = self.head(self.normed(x))
        return out

    def normed(self, x: Tensor) -> Tensor:
        """Return what the last product reads of a guess, [B, N, d]. It is near what the model's reads."""
        return rms_norm(x, self.norm, self.eps)
