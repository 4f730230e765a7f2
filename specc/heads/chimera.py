"""A trigram encoder below one layer of full context (Chimera, Zeng et al. 2024, arXiv:2402.15758).

The lower layers of a model see what is near. For the tokens that the model has not run, an MLP over the embeddings of
the last three takes their place. One decoder layer then reads what is far: the model's last states of the tokens that
it has run, and what the MLP made of all tokens. What it returns guesses the model's last state of the token, which
takes the place of this state for the tokens drafted behind it.

A slot has its own token alone. So the drafter writes the two tokens before it behind the state. Each is three digits to
the base 128, which all types of numbers hold exactly.

It departs from the paper in these points:

1. Half of the heads of the layer look at the states, the other half at the trigrams. In the paper all heads look at
   both in one softmax. So one row has both, and a token's row is made once.
2. The layer starts from a linear guess of the next state, as that of EAGLE-3's head here (specc/heads/eagle3.py).
3. The last product reads one state of d numbers. The paper's reads two, and has twice the weights.

B  sequences, one in an engine      N  slots      d  the model's hidden size
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, option, parts, rms_norm
from specc.heads.layer import Attend, Layer
from specc.heads.layer_head import PRODUCT, LayerHead
from specc.runtime.drafters.chimera import BASE, DIGITS, TOKENS_BEFORE


class PairedProduct(nn.Module):
    """Two products of two parts of the input, [B, N, 2 * d], whose results stand side by side.

    Args:
        inputs: numbers of a part.
        outputs: numbers of a result.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first, self.second = linear(inputs, outputs), linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, N, 2 * outputs]."""
        first, second = parts(x, 2)
        return torch.cat([self.first(first), self.second(second)], -1)


class FullContextLayer(Layer):
    """A decoder layer. Half of its heads have keys and values from the model's states, the others from its own input.

    Args:
        config: see `Layer`. The numbers of heads are even.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, 0, wide=False)
        size, outputs = config.target.hidden_size, self.key_heads // 2 * self.head_size
        self.key, self.value = PairedProduct(size, outputs), PairedProduct(size, outputs)
        self.source_norm = nn.Parameter(torch.ones(size))

    def forward(self, token: Tensor, x: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Run the layer. See `Layer`, but for `token`.

        Args:
            token: [B, N, d]: the model's states before the tokens, or guesses of them.
            x: [B, N, d]: the residual stream.
            position_ids: [B, N].
            attend: attention among the slots, and to those before.
        """
        read = rms_norm(x, self.state_norm, self.eps)
        source = torch.cat([rms_norm(token, self.source_norm, self.eps), read], -1)
        return self.add(x, read, source, position_ids, attend)


class Chimera(LayerHead):
    """A recurrent head whose state is the model's, or a guess of it, and the digits of the two tokens before.

    Args:
        config: its settings are those of `Layer`. An optional one is `trigrams` (1; 0 leaves out the encoder, so that
            the layer reads the token alone through a product).
    """

    weights_of_digits: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, wide=False, input_norm=True, own_product=True, next_state=PRODUCT)
        self.size = config.target.hidden_size
        self.layers = nn.ModuleList([FullContextLayer(config)])
        self.fc, self.token = linear(len(config.taps) * self.size, self.size), linear(self.size, self.size)
        self.has_trigrams = bool(option(config, "trigrams", 1))
        if self.has_trigrams:
            self.up, self.down = linear((1 + TOKENS_BEFORE) * self.size, self.size), linear(self.size, self.size)
        self.register_buffer("weights_of_digits", BASE ** torch.arange(DIGITS), persistent=False)

    @property
    def state_size(self) -> int:
        return self.size + TOKENS_BEFORE * DIGITS

    def fuse(self, taps: Tensor) -> Tensor:
        states = rms_norm(torch.unflatten(taps, -1, (len(self.taps), -1)), None, self.eps)
        return self._with_room(self.fc(states.flatten(-2)))

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        x = self.run_layers(input_ids, position_ids, state, [layer.attend for layer in self.decoder_layers()])
        return {"logits": self.logits(x), "state": self.next_state(x)}

    def run_layers(self, input_ids: Tensor, position_ids: Tensor, state: Tensor, attention: list[Attend]) -> Tensor:
        digits = torch.unflatten(state[..., self.size :].to(torch.int64), -1, (TOKENS_BEFORE, DIGITS))
        # Room in which nothing was written, as in slots of padding, also names tokens that there are.
        before = (digits * self.weights_of_digits).sum(-1).clamp(0, self.config.target.vocab_size - 1)
        state = state[..., : self.size]
        (layer,) = self.decoder_layers()
        x: Tensor = layer(state, state + self.encode(input_ids, before), position_ids, attention[0])
        return x

    def encode(self, input_ids: Tensor, before: Tensor) -> Tensor:
        """Return what the encoder makes of a token and of those before it, [B, N, d].

        Args:
            input_ids: [B, N] int64: the tokens.
            before: [B, N, 2] int64: the tokens before each, the last one first.
        """
        token = self._normed_embeddings(input_ids)
        linear_part: Tensor = self.token(token)
        if not self.has_trigrams:
            return linear_part
        trigram = torch.cat([token, self._normed_embeddings(before).flatten(-2)], -1)
        correction: Tensor = self.down(functional.silu(self.up(trigram)))
        return linear_part + correction

    def next_state(self, x: Tensor) -> Tensor:
        return self._with_room(super().next_state(x))

    def _with_room(self, state: Tensor) -> Tensor:
        """Return the state [B, N, d] with zeros behind it, in whose place the drafter writes tokens."""
        return functional.pad(state, (0, TOKENS_BEFORE * DIGITS))

    def _normed_embeddings(self, ids: Tensor) -> Tensor:
        assert self.embedding is not None, "no table was attached"
        return rms_norm(functional.embedding(ids, self.embedding), None, self.eps)
