"""Layers that guess a block of tokens in one call (DFlash, Chen et al. 2026, arXiv:2602.06036).

A block is the pending token and slots without a token, whose embedding is that of a mask. They see one another, those
behind them too, and the tokens before. Of those each layer makes keys and values from the model's states: a product
joins the states after several layers, and every layer reads the result. So nothing but the block runs through the
layers. The slot of a position guesses the token of that position, by the model's own last product.

It departs from the paper in four points, of which the first makes it learn faster from little text:

1. The pending token and the state before it also enter the stream of the first guess, through products that start from
   a closed form (specc/training/closed_form.py). In the paper they enter by attention alone.
2. The states of each layer that is read are divided by their root mean square before the product.
3. The embedding of the mask is learned; the authors' heads take that of a token of the model.
4. 'specc train' makes a head of two layers, and the authors' heads have five: a small model pays for each layer.

The settings of a checkpoint from elsewhere switch the first three off.

B  sequences, one in an engine      N  slots      T  taps      d  the model's hidden size
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specc.heads.eagle3 import EACH, normed_taps
from specc.heads.head import HeadConfig, linear, option, rms_norm, setting
from specc.heads.layer import Attend
from specc.heads.layer_head import STREAM, LayerHead
from specc.runtime.drafters.dflash import CONTEXT, PENDING
from specc.runtime.errors import HeadError


class Dflash(LayerHead):
    """A head of decoder layers that guesses several tokens in one call.

    A state [d + 1] ends with the place of its slot, see `specc.runtime.drafters.dflash`. All slots of a block come with
    the pending token and the last state of the text before it.

    Args:
        config: its settings are those of `LayerHead` and `guesses`, the tokens that a block guesses. Optional ones are
            `tap_norm` (see `Eagle3`), `own_product` (1: the head has a matrix for its logits), `token` (0: the pending
            token and the last state do not enter the stream of the first guess) and `mask_token` (a slot without a
            token has the embedding of this one; -1: it has one that is learned).

    Raises:
        HeadError: the model has no such token.
    """

    recurrent = False
    mask: nn.Parameter | None

    def __init__(self, config: HeadConfig) -> None:
        own_product = bool(option(config, "own_product", 0))
        super().__init__(config, wide=False, input_norm=True, own_product=own_product, next_state=STREAM)
        size = config.target.hidden_size
        self.guesses = int(setting(config, "guesses"))
        self.tap_norm = int(option(config, "tap_norm", EACH))
        self.mask_token = int(option(config, "mask_token", -1))
        if self.mask_token >= config.target.vocab_size:
            raise HeadError(
                f"the head's config.json says mask_token is {self.mask_token}, and the model has tokens "
                f"0..{config.target.vocab_size - 1}; train the head again"
            )
        self.fc = linear(len(config.taps) * size, size)
        is_direct = bool(option(config, "token", 1))
        self.token, self.last = (linear(size, size) if is_direct else None for _ in range(2))
        self.context_norm = nn.Parameter(torch.ones(size))
        self.register_parameter("mask", nn.Parameter(0.02 * torch.randn(size)) if self.mask_token < 0 else None)

    @property
    def state_size(self) -> int:
        return self.config.target.hidden_size + 1

    def fuse(self, taps: Tensor) -> Tensor:
        state = rms_norm(
            self.fc(normed_taps(taps, len(self.taps), self.tap_norm, self.eps)), self.context_norm, self.eps
        )
        return torch.cat([state, torch.full_like(state[..., :1], CONTEXT)], -1)

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        x = self.run_layers(input_ids, position_ids, state, [layer.attend for layer in self.decoder_layers()])
        return {"logits": self.logits(x)}

    def run_layers(self, input_ids: Tensor, position_ids: Tensor, state: Tensor, attention: list[Attend]) -> Tensor:
        pending, _ = self.inputs(input_ids, state)
        context, place = state[..., :-1], state[..., -1:]
        is_guess, is_first = place > PENDING, (place > PENDING) & (place < PENDING + 2)
        x = torch.where(is_guess, self.mask_embedding(), pending)
        if self.token is not None and self.last is not None:
            guess = self.token(rms_norm(pending, None, self.eps)) + self.last(context)
            x = torch.where(is_first, x + guess, x)
        for layer, attend in zip(self.decoder_layers(), attention, strict=True):
            read = rms_norm(x, layer.state_norm, self.eps)
            source = torch.where(place > CONTEXT, read, context)
            x = layer.add(x, read, source, position_ids, attend)
        return x

    def mask_embedding(self) -> Tensor:
        """Return the embedding of a slot without a token, [d]."""
        if self.mask is not None:
            return self.mask
        assert self.embedding is not None, "no table was attached"
        return self.embedding[self.mask_token]
