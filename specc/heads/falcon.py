"""Two tokens a call by LSTM layers and a block that sees itself (Falcon, Gao et al. 2024, arXiv:2412.12639).

The slots of the text stand in blocks of two. Two LSTM layers run over tokens beside states, from slot to slot. Then one
decoder layer attends: a slot sees the slots of earlier blocks, and both slots of its own block. Of the last two slots,
the first guesses the state behind the second one, and the second guesses the state one place further. So one call makes
two tokens, and the next call runs both.

Keys and values of a slot come from the LSTM layers, which see earlier slots alone. So they are the same wherever blocks
begin, and any two slots can be the last block: a step may accept an odd number of tokens. Here a slot computes the
attention of its whole block. The output of the LSTM layers in the slot before it is a part of what they remember.

What a slot reads beside its token, [6 d]: a state, what the LSTM layers remember of the slots before it (4 d), and
whether it starts from that (1) or from the slot before it in the same call (0). What it returns: the first guess, what
the LSTM layers remember, and the second guess.

It departs from the paper in these points:

1. The guesses begin with linear ones, which start from a closed form; the LSTM and the layer correct them.
2. Both queries of a block turn by the position of its last slot.

B  sequences, one in an engine      N  slots      H  heads      G  key heads      C  size of a head      d  hidden size
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.eagle import Eagle
from specc.heads.head import HeadConfig, linear, rms_norm
from specc.heads.layer import Attend, Layer, rotate
from specc.passes import cell_operators  # noqa: F401  registers specc::cells

BLOCK = 2  # Slots of a block.
LAYERS = 2  # Of the LSTM.
PARTS = 6  # Of what a slot reads and returns, each of d numbers.

# Runs an LSTM layer: gates, weight, start, starts to outputs, cells and outputs before, see `cell_operators.run_cells`.
Cells = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class BlockLayer(Layer):
    """A decoder layer that attends from both slots of a block to all rows up to the end of the block."""

    def of_block(self, block: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Run the layer for the block that ends in each slot.

        Args:
            block: [B, N, 2, d]: the residual stream of the slot before, and of the slot.
            position_ids: [B, N].
            attend: attention of 2 H heads. The slot's own row is the last one that it sees.

        Returns:
            The residual stream, [B, N, 2, d].
        """
        read = rms_norm(block, self.state_norm, self.eps)
        groups = self.heads // self.key_heads
        # A head of keys serves the heads of both slots, which stand side by side: [B, G, 2, H / G, N, C].
        query = torch.unflatten(self.query(read), -1, (self.key_heads, groups, self.head_size))
        query = query.permute(0, 3, 2, 4, 1, 5).flatten(1, 3)
        key, value = (self._heads(product(read[:, :, -1])) for product in (self.key, self.value))
        cos, sin = self.angles(position_ids)
        attended = attend(rotate(query, cos, sin), rotate(key, cos, sin), value)
        rows = torch.unflatten(attended, 1, (self.key_heads, BLOCK, groups)).permute(0, 4, 2, 1, 3, 5).flatten(3)
        return self.after_mlp(block + self.output(rows))


class Falcon(Eagle):
    """A head that makes two tokens, and the states of the slots behind them, side by side.

    Args:
        config: its settings are those of `Eagle`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        size = self.size = config.target.hidden_size
        self.layers = nn.ModuleList([BlockLayer(config, 0, wide=False)])
        self.second = linear(2 * size, size)
        self.lstm = nn.ModuleList([nn.LSTM(inputs, size, batch_first=True) for inputs in (2 * size, size)])
        self.correction = linear(size, size)

    @property
    def block_layer(self) -> BlockLayer:
        """The only decoder layer."""
        (layer,) = self.layers
        assert isinstance(layer, BlockLayer)
        return layer

    @property
    def state_size(self) -> int:
        return PARTS * self.size

    def draft_cost(self, drafted: int, parameters: int) -> float:
        """See `Head`: a call makes two tokens."""
        return super().draft_cost((drafted + 1) // BLOCK, parameters)

    def fuse(self, taps: Tensor) -> Tensor:
        return functional.pad(taps, (0, (PARTS - 1) * self.size))

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        last, memory, rest = torch.split(state, [self.size, 2 * LAYERS * self.size, self.size], -1)
        x = self.beside(input_ids, last)
        memory, block = self.remember(x, memory, rest[..., :1], torch.ops.specc.cells)
        features = self.guess(x, block, position_ids, self.block_layer.attend)
        first, second = features[:, :, 0], features[:, :, 1]
        return {"logits": self.logits(features), "state": torch.cat([first, memory, second], -1)}

    def beside(self, input_ids: Tensor, state: Tensor) -> Tensor:
        """Return the embeddings beside the states [B, N, d], [B, N, 2 d]."""
        embeddings, state = self.inputs(input_ids, state)
        return torch.cat([embeddings, state], -1)

    def remember(self, x: Tensor, memory: Tensor, starts: Tensor, run: Cells) -> tuple[Tensor, Tensor]:
        """Run the LSTM layers.

        Args:
            x: [B, N, 2 d]: embeddings beside states.
            memory: [B, N, 4 d]: what a slot may start from: output and cell of each layer, side by side.
            starts: [B, N, 1]: 1 where a slot starts from that.
            run: runs a layer.

        Returns:
            What they remember behind each slot, [B, N, 4 d], and the outputs of the last layer before the slot and
            behind it, [B, N, 2, d].
        """
        size, inputs, behind = self.size, self.lstm_inputs(x), list[Tensor]()
        before = inputs
        for number, layer in enumerate(self.lstm):
            start = memory[..., 2 * number * size : 2 * (number + 1) * size]
            rows = run(gates_from(layer, inputs), layer.get_parameter("weight_hh_l0"), start, starts)
            inputs, cell, before = torch.split(rows, size, -1)
            behind += [inputs, cell]
        return torch.cat(behind, -1), torch.stack([before, inputs], 2)

    def lstm_inputs(self, x: Tensor) -> Tensor:
        """Return embeddings and states side by side, each normed, [B, N, 2 d]."""
        return torch.cat([rms_norm(part, None, self.eps) for part in torch.split(x, self.size, -1)], -1)

    def guess(self, x: Tensor, block: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Return what the last product reads of both tokens, [B, N, 2, d].

        Args:
            x: see `remember`.
            block: what `remember` returned.
            position_ids: see `forward`.
            attend: attention of the decoder layer.
        """
        stream = self.block_layer.of_block(block, position_ids, attend)
        corrections: Tensor = self.correction(rms_norm(stream, None, self.eps))
        return torch.stack([self.fc(x), self.second(x)], 2) + corrections


def gates_from(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return what the inputs [B, N, n] and the biases add to the gates of an LSTM layer, [B, N, 4 d]."""
    enter, *biases = (layer.get_parameter(f"{name}_l0") for name in ("weight_ih", "bias_ih", "bias_hh"))
    return functional.linear(inputs, enter, biases[0] + biases[1])
